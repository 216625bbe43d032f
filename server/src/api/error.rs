//! The form of every error response: a status and `{"code", "message"}`. Neither repeats a value or
//! a token.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use devbox_secrets_proto::devbox::ErrorBody;

use super::answer::json;
use super::observe::LoggedFailure;
use crate::logs::chain;
use crate::registry::{Budget, Refusal, RefusalKind};
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    of_store: bool,
    retry_after: Option<Duration>,
    budget: Option<Budget>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), of_store: false, retry_after: None, budget: None }
    }

    /// 400: the request is wrong and would be wrong again.
    pub(super) fn invalid(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: the caller is unknown.
    pub(super) fn unauthenticated(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    /// 500, for a fault that is logged where it happens.
    pub(super) fn internal() -> Self {
        let message =
            "the server could not do this; try again, and if it persists look into the server's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// 503: the server is stopping; the client should retry.
    pub(super) fn stopping() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping: try again")
        }
    }

    /// The same request is taken after `wait`.
    pub(super) fn retry_later(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        wait: Duration,
    ) -> Self {
        Self { retry_after: Some(wait), ..Self::new(status, code, message) }
    }

    /// 503: every connection to the database is in use.
    fn busy_store() -> Self {
        let message = "the database is busy: try again";
        let code = "database_busy";
        Self {
            of_store: true,
            ..Self::retry_later(StatusCode::SERVICE_UNAVAILABLE, code, message, Duration::from_secs(1))
        }
    }

    /// 404 for a path that is no route.
    pub(super) fn unknown_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_route",
            "there is nothing at this path; GET /openapi.json lists what there is",
        )
    }

    /// 405; the router adds `Allow`.
    pub(super) fn method_not_allowed() -> Self {
        let message = "this path does not take this method; the Allow header lists those that it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind() {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            RefusalKind::Forbidden => StatusCode::FORBIDDEN,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let Some(detail) = refusal.detail() {
            tracing::error!(code = refusal.code(), detail = chain(detail), "request failed");
        }
        if refusal.detail().and_then(|detail| detail.downcast_ref()).is_some_and(StoreError::is_busy) {
            return Self::busy_store();
        }
        let of_store = refusal.detail().is_some_and(|detail| detail.is::<StoreError>());
        let retry_after = refusal.retry_after();
        let budget = refusal.budget();
        Self {
            of_store,
            retry_after,
            budget,
            ..Self::new(status, refusal.code(), refusal.message().to_owned())
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let failure = LoggedFailure { code: self.code, of_store: self.of_store, budget: self.budget };
        let body = ErrorBody { code: self.code.to_owned(), message: self.message.into_owned() };
        let mut response = json(self.status, &body);
        response.extensions_mut().insert(failure);
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 section 3.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // RFC 9110 section 10.2.3: whole seconds.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = HeaderValue::from_str(&seconds.to_string());
            response.headers_mut().extend(seconds.ok().map(|seconds| (RETRY_AFTER, seconds)));
        }
        response
    }
}
