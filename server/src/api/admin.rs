//! Routes for monitoring, on a loopback address: `/metrics`, `/healthz` (the process serves) and
//! `/readyz` (the database is also readable and its master key is loaded).

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::ApiError;
use super::host::require_host;
use crate::registry::Registry;

/// OpenMetrics 1.0.0, section 4.1: what Prometheus scrapes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn router(registry: &Registry) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || ApiError::unknown_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn(require_host))
        .with_state(registry.clone())
}

async fn metrics(State(registry): State<Registry>) -> Result<Response, ApiError> {
    let text = registry.metrics().text().map_err(|_| ApiError::internal())?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

async fn ready(State(registry): State<Registry>) -> Response {
    match registry.is_ready().await {
        true => "ready\n".into_response(),
        false => {
            let text = "not ready: the database or its master key cannot be used; the log says why\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}
