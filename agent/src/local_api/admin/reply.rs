//! Responses in JSON.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub(super) fn stranger() -> Response<Full<Bytes>> {
    refusal(StatusCode::FORBIDDEN, "forbidden", "only root and the daemon's own user may ask here")
}

pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({"code": code, "message": message}))
}

/// Bodies are text, numbers and lists, which always serialise.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default())));
    *response.status_mut() = status;
    let value = HeaderValue::from_static;
    response.headers_mut().insert(CONTENT_TYPE, value("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
    response
}
