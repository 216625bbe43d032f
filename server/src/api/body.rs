//! Request bodies: bounded, on a deadline, wiped.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::error::ApiError;
use super::json::{Object, parse};
use super::load::BodyMemory;
use super::observe::own_request_id;
use crate::registry::{Caller, Retry};

/// The longest body in bytes. The longest value fits, JSON-escaped.
pub(super) const MAX_BODY_LEN: usize = 1024 * 1024;
/// The first allocation for a body, in bytes.
const FIRST_LEN: usize = 512;
/// Most bytes of a body over the limit that are read and dropped before it is refused, and the
/// longest time for that.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time for a body to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The request's body, which has to be a JSON object of the form `T`.
pub(super) struct JsonObject<T>(pub(super) T);

impl<S: Sync, T: Object> FromRequest<S> for JsonObject<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        object(&json_bytes(request, T::MAX_LEN).await?).map(Self)
    }
}

/// A requested write: its caller and its body. With an x-request-id it is done once.
pub(super) struct Write<T> {
    pub(super) caller: Caller,
    pub(super) body: T,
}

impl<S: Sync, T: Object> FromRequest<S> for Write<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let caller = request.extensions().get::<Arc<Caller>>().cloned().ok_or_else(ApiError::internal)?;
        let id = own_request_id(request.headers())?;
        let method = request.method().clone();
        let uri = request.uri().clone();
        let bytes = json_bytes(request, T::MAX_LEN).await?;
        let body = object(&bytes)?;
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let retry = id.map(|id| Retry::new(id, method.as_str(), path, &bytes));
        let caller = retry.map_or_else(|| Caller::clone(&caller), |retry| caller.retrying(retry));
        Ok(Self { caller, body })
    }
}

/// The body of a request whose path says everything: absent, or `{}`.
#[derive(Default)]
pub(super) struct NoFields;

impl Object for NoFields {
    const FIELDS: &'static [super::json::Field] = &[];

    fn read<'de, A: serde::de::MapAccess<'de>>(&mut self, _: usize, _: &mut A) -> Result<(), A::Error> {
        Ok(())
    }
}

fn object<T: Object>(bytes: &[u8]) -> Result<T, ApiError> {
    if !bytes.is_empty() {
        return parse(bytes).map_err(|error| ApiError::invalid("invalid_body", error.to_string()));
    }
    let required: Vec<&str> = T::FIELDS.iter().filter(|f| f.required).map(|f| f.name).collect();
    if required.is_empty() {
        return Ok(T::default());
    }
    let message = format!("the request has no body: send a JSON object with {}", required.join(", "));
    Err(ApiError::invalid("invalid_body", message))
}

/// The whole body. If it has a content type, that has to be JSON.
async fn json_bytes(request: Request, max_len: usize) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let (parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Connection>>().ok_or_else(ApiError::internal)?;
    let memory = BodyMemory::new(Arc::clone(&connection.load), Some(connection.remote.ip()));
    let bytes = timeout(BODY_TIMEOUT, collect(body, max_len, memory)).await.map_err(|_| too_slow())??;
    if !bytes.is_empty() && !is_json(&parts.headers) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body as content-type: application/json, without a content-encoding",
        ));
    }
    Ok(bytes)
}

/// Collects at most `max_len` bytes, whatever the announced length. Memory is allocated as bytes
/// arrive, not as they are announced.
async fn collect(
    mut body: Body,
    max_len: usize,
    mut memory: BodyMemory,
) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_len {
        discard(&mut body).await;
        return Err(too_large(max_len));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| ApiError::invalid("incomplete_body", "the body ended early: send it again"))?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if bytes.len() + data.len() > max_len {
            discard(&mut body).await;
            return Err(too_large(max_len));
        }
        append(&mut bytes, data, &mut memory)?;
    }
    Ok(bytes)
}

/// Reads the rest of the body and drops it. A connection that is closed with unread input is reset,
/// and the reset can overtake the answer (RFC 9112, section 9.6): the client would see a broken
/// pipe and not the refusal.
async fn discard(body: &mut Body) {
    let reading = async {
        let mut read = 0;
        while read < MAX_DISCARDED
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A slower or longer body is refused before its end.
    let _ = timeout(DISCARD_TIMEOUT, reading).await;
}

/// Appends to the buffer. If the buffer has to grow, the old one is wiped.
fn append(bytes: &mut Zeroizing<Vec<u8>>, data: &[u8], memory: &mut BodyMemory) -> Result<(), ApiError> {
    let needed = bytes.len() + data.len();
    if needed > bytes.capacity() {
        let capacity = needed.next_power_of_two().max(FIRST_LEN);
        memory.grow_to(capacity)?;
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(data);
    Ok(())
}

fn too_large(max_len: usize) -> ApiError {
    let message = format!("a body here has at most {max_len} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn too_slow() -> ApiError {
    let message = "the body did not arrive within 30 seconds: send it again";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
}

/// `application/json`, with any parameters (RFC 9110 section 8.3), not encoded.
fn is_json(headers: &HeaderMap) -> bool {
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    plain && essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::response::IntoResponse;
    use hyper::body::{Bytes, Frame};

    use super::*;

    fn memory() -> BodyMemory {
        BodyMemory::new(Arc::default(), None)
    }

    #[test]
    fn json_is_known_by_its_essence() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json-patch+json", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_json(&headers), json, "{value}");
        }
        let encoded = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")];
        assert!(!is_json(&HeaderMap::from_iter(encoded.map(|(name, value)| (name, value.parse().unwrap())))));
    }

    /// A body of so many bytes that does not say how many, as with `transfer-encoding: chunked`.
    struct Unannounced(usize);

    impl hyper::body::Body for Unannounced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_say_how_long_it_is_has_the_same_limit() {
        let whole = collect(Body::new(Unannounced(8)), 8, memory()).await.ok();
        assert_eq!(whole.map(|bytes| bytes.len()), Some(8));
        let refused = collect(Body::new(Unannounced(9)), 8, memory()).await.err();
        assert_eq!(refused.map(|error| error.into_response().status()), Some(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn appending_keeps_every_byte() {
        let mut bytes = Zeroizing::new(Vec::new());
        let mut memory = memory();
        for chunk in [&b"abc"[..], b"", b"defghij", &[b'x'; 100]] {
            append(&mut bytes, chunk, &mut memory).unwrap();
        }
        assert_eq!(bytes[..12], *b"abcdefghijxx");
        assert_eq!(bytes.len(), 110);
    }
}
