//! The server's log: its format and level. No log statement of this program gets a value, a token,
//! a header or a body.

use std::sync::OnceLock;

use devbox_secrets_common::log::{Format, layer, stderr};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

pub(crate) use devbox_secrets_common::text::chain;

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Form of a line.
    pub format: Format,
    /// The least severe level that is written.
    pub level: LevelFilter,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: Format::Auto, level: LevelFilter::INFO }
    }
}

/// Parses a level's name.
///
/// # Errors
/// The valid names.
pub(crate) fn parse_level(text: &str) -> Result<LevelFilter, &'static str> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("the levels are \"error\", \"warn\", \"info\", \"debug\" and \"trace\""),
    }
}

/// Changes the filter of the log that [`start`] has set up.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging. `RUST_LOG`, if it is a level's name, overrides the configured level.
pub(crate) fn start(config: LogConfig) {
    let (filter, handle) = Layer::new(filter(config.level));
    let lines = layer(config.format, stderr::writer().clone());
    // A log that is already there (in tests) stays, with its level.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Changes the level, unless `RUST_LOG` has one.
pub(crate) fn set_level(level: LevelFilter) {
    if let Some(handle) = FILTER.get() {
        // Fails only if the subscriber is gone, which lives as long as the process.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LevelFilter) -> EnvFilter {
    let environment = std::env::var("RUST_LOG").ok().and_then(|level| parse_level(&level).ok());
    EnvFilter::new(directives(environment.unwrap_or(level)))
}

/// Libraries log at most at `info`: at `debug` and `trace` they print frames and rows.
fn directives(level: LevelFilter) -> String {
    let libraries = level.min(LevelFilter::INFO);
    format!("{libraries},devbox_secrets_server={level},devbox_secrets_proto={level}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_log_their_frames() {
        assert!(directives(LevelFilter::TRACE).starts_with("info,"));
        assert!(directives(LevelFilter::ERROR).starts_with("error,"));
    }

    #[test]
    fn levels_have_names() {
        assert_eq!(parse_level("trace"), Ok(LevelFilter::TRACE));
        assert!(parse_level("loud").is_err());
    }
}
