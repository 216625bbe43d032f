//! `[retention]`: how long ended things are kept.

use std::time::Duration;

use devbox_secrets_common::config::{self, Section};

const DAY: Duration = Duration::from_secs(86_400);

/// `[retention]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Rows of the audit. `None`: until `audit prune`.
    pub audit: Option<Duration>,
    /// Certificates, after their expiry.
    pub certificates: Duration,
    /// Join tokens, after they were used or have expired.
    pub join_tokens: Duration,
    /// Devboxes, after they were shut down.
    pub devboxes: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { audit: Some(400 * DAY), certificates: 7 * DAY, join_tokens: 7 * DAY, devboxes: 30 * DAY }
    }
}

pub(super) fn retention(section: &mut Section<'_, '_>) -> RetentionConfig {
    let default = RetentionConfig::default();
    RetentionConfig {
        audit: section.parsed("audit", audit).unwrap_or(default.audit),
        certificates: section.parsed("certificates", span).unwrap_or(default.certificates),
        join_tokens: section.parsed("join_tokens", span).unwrap_or(default.join_tokens),
        devboxes: section.parsed("devboxes", span).unwrap_or(default.devboxes),
    }
}

fn audit(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" { Ok(None) } else { span(text).map(Some) }
}

fn span(text: &str) -> Result<Duration, String> {
    match config::time(text).map_err(|error| error.to_string())? {
        span if span < DAY => Err("must be at least a day (\"1d\")".to_owned()),
        span => Ok(span),
    }
}
