//! The frame of every request: an id, one line in the log, common headers.
//!
//! The line has the method, the route's template (never the path or query that was sent), the
//! status, the time taken, the account or devbox, and the request's id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::HEXLOWER;
use tracing::Instrument;

use super::connection::Connection;
use super::error::ApiError;
use crate::metrics::{self, Metrics};
use crate::registry::Budget;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken from a caller.
const MAX_REQUEST_ID_LEN: usize = 128;

/// An extension of the response, set by the route: the path's template.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteTemplate(pub(super) &'static str);

/// An extension of the response, set when the caller is known: an account or devbox id.
#[derive(Debug, Clone)]
pub(super) struct CallerId(pub(super) String);

/// An extension of an error response: the reason, for the counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoggedFailure {
    pub(super) code: &'static str,
    pub(super) of_store: bool,
    pub(super) budget: Option<Budget>,
}

/// The listener's name and its counters.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    pub(super) listener: &'static str,
    pub(super) metrics: Arc<Metrics>,
}

impl Observer {
    /// Counts a response to bytes that were not a request.
    pub(super) fn count_unparsed(&self, status: u16, code: &'static str) {
        let Self { listener, metrics } = self;
        metrics.answered(&metrics::Request { listener, route: "none", status });
        metrics.refused(&metrics::Refused { listener, reason: code });
    }

    fn count(&self, response: &Response, duration: Duration) {
        let Self { listener, metrics } = self;
        let extensions = response.extensions();
        let route = extensions.get::<RouteTemplate>().map_or("none", |route| route.0);
        metrics.answered(&metrics::Request { listener, route, status: response.status().as_u16() });
        metrics.took(listener, route, duration);
        let Some(failure) = extensions.get::<LoggedFailure>() else { return };
        metrics.refused(&metrics::Refused { listener, reason: failure.code });
        if let Some(budget) = failure.budget {
            metrics.over_budget(budget.as_str());
        }
        if failure.of_store {
            metrics.store_failed();
        }
    }
}

/// The outermost layer of both listeners.
pub(super) async fn observe(State(observer): State<Observer>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let remote = request.extensions().get::<Arc<Connection>>().map(|connection| connection.remote);
    let id = request_id(request.headers());
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let mut response = next.run(request).instrument(span.clone()).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let duration = started.elapsed();
    observer.count(&response, duration);
    let done = Done { listener: observer.listener, method, remote, duration };
    span.in_scope(|| done.log(&response));
    response
}

struct Done {
    listener: &'static str,
    method: Method,
    remote: Option<SocketAddr>,
    duration: Duration,
}

impl Done {
    /// An unchanged poll (204) is logged for `debug` only, because an idle fleet would fill the
    /// log.
    fn log(&self, response: &Response) {
        if response.status() == StatusCode::NO_CONTENT && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let extensions = response.extensions();
        tracing::info!(
            listener = self.listener,
            method = %self.method,
            route = extensions.get::<RouteTemplate>().map(|route| route.0),
            status = response.status().as_u16(),
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            caller = extensions.get::<CallerId>().map(|caller| caller.0.as_str()),
            remote = self.remote.map(tracing::field::display),
            "request"
        );
    }
}

/// The caller's own id if it is short and printable, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(&REQUEST_ID).filter(|id| is_sound(id.as_bytes()));
    own.cloned().unwrap_or_else(|| {
        let mut bytes = [0; 16];
        // An id is not secret: if random numbers fail, requests share one id and only logs are less
        // clear.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        HeaderValue::from_str(&format!("req_{}", HEXLOWER.encode(&bytes)))
            .unwrap_or(HeaderValue::from_static("req_0"))
    })
}

/// The caller's own id, under which a write is done once. `None` if the header is absent.
///
/// # Errors
/// 400 for an id that cannot be stored: the caller relies on it and has to know.
pub(super) fn own_request_id(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(id), None) if is_sound(id.as_bytes()) => Ok(id.to_str().ok().map(str::to_owned)),
        _ => Err(ApiError::invalid(
            "invalid_request_id",
            "x-request-id, where it is sent, is one text of 1 to 128 printable ASCII characters without spaces",
        )),
    }
}

fn is_sound(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_LEN).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())])
    }

    #[test]
    fn a_sound_request_id_is_kept() {
        assert_eq!(request_id(&headers("stainless-node-retry-1234")), "stainless-node-retry-1234");
    }

    #[test]
    fn any_other_request_id_is_replaced() {
        for bad in ["", "a b", "\u{e9}", &"x".repeat(MAX_REQUEST_ID_LEN + 1)] {
            let id = request_id(&headers(bad));
            assert!(id.to_str().unwrap().starts_with("req_"), "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
