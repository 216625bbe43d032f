//! Refusals of the registry. The caller's message and the log's cause differ by type.
//!
//! Neither part ever holds a value or a token.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::store::Budget;

/// The kinds of refusal, one HTTP status each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 400: the request is wrong and would be wrong again.
    Invalid,
    /// 401: the caller is unknown.
    Unauthenticated,
    /// 403: the caller is known and not authorized.
    Forbidden,
    /// 404: no such thing in the caller's account.
    NotFound,
    /// 429: a rate is used up, for [`Refusal::retry_after`].
    RateLimited,
    /// 500: the server failed; [`Refusal::detail`] has the cause.
    Internal,
}

/// One refusal: a kind, a stable code and a message for the caller, and a private cause for the
/// log.
#[derive(Debug)]
pub struct Refusal {
    kind: RefusalKind,
    code: &'static str,
    message: String,
    detail: Option<Box<dyn Error + Send + Sync>>,
    retry_after: Option<Duration>,
    budget: Option<Budget>,
}

impl Refusal {
    /// 400 with a stable `code` such as `name_taken`.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, code, message)
    }

    /// 401.
    pub(crate) fn unauthenticated(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unauthenticated, code, message)
    }

    /// 403.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Forbidden, code, message)
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, "not_found", message)
    }

    /// 429 with a `code` that names the budget; the same request is taken after `retry_after`.
    pub(crate) fn rate_limited(
        code: &'static str,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(RefusalKind::RateLimited, code, message) }
    }

    /// 500. `detail` is for the log; the caller reads only that the server failed.
    pub(crate) fn internal(detail: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let message =
            "the server could not do this; try again, and if it persists look into the server's log";
        Self { detail: Some(detail.into()), ..Self::new(RefusalKind::Internal, "internal", message) }
    }

    fn new(kind: RefusalKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), detail: None, retry_after: None, budget: None }
    }

    /// The kind, which decides the HTTP status.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }

    /// A stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The message for the caller: the problem and the remedy.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same refusal, counted for `budget`.
    pub(super) fn of_budget(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// The same refusal as a 403.
    pub(super) fn forbidding(self) -> Self {
        Self { kind: RefusalKind::Forbidden, ..self }
    }

    /// The budget that is used up, if that is the reason.
    pub(crate) fn budget(&self) -> Option<Budget> {
        self.budget
    }

    /// How long to wait before the same request is taken, if waiting helps.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The cause, for the log only.
    #[must_use]
    pub fn detail(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.detail.as_deref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.detail.as_deref().map(|detail| detail as &(dyn Error + 'static))
    }
}
