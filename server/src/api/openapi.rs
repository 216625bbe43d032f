//! `GET /openapi.json`: the OpenAPI document of the public listener. A test compares it with the
//! table of routes.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::answer::JSON;

/// The document (OpenAPI 3.0.3).
pub const DOCUMENT: &str = include_str!("../../openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    const TYPE: HeaderValue = JSON;
    ([(CONTENT_TYPE, TYPE)], DOCUMENT)
}
