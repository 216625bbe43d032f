//! The daemon's log: text for systemd-journald if it reads standard error, the audit as entries of
//! its own.

use devbox_secrets_common::log::{LineBuffer, journal, layer, stderr};
use thiserror::Error;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

use super::audit::{self, JournalLayer};

pub use devbox_secrets_common::log::Format;

pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level is not a filter.
    #[error("invalid log level: use error, warn, info, debug, trace, or target=level,…")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("a log is already set up in this process")]
    Installed(#[source] TryInitError),
}

/// Checks a level as [`start`] will.
///
/// # Errors
/// [`LogError::Level`].
pub(crate) fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(LogError::Level)
}

/// Starts the process's one log. `audit`: whether audit events are logged, at any `level`. Lines
/// wait in a queue until [`stderr::start`].
///
/// # Errors
/// [`LogError`].
pub fn start(level: &str, format: Format, audit: bool) -> Result<(), LogError> {
    let registry = tracing_subscriber::registry().with(filter_with(level, audit)?);
    let started = match resolve(format) {
        Format::Journald => {
            let lines = layer(Format::Journald, Stderr).with_filter(filter_fn(|event| !is_audit(event)));
            let audit = JournalLayer::new(audit::writer()).with_filter(filter_fn(is_audit));
            registry.with(lines).with(audit).try_init()
        }
        format => registry.with(layer(format, Stderr)).try_init(),
    };
    started.map_err(LogError::Installed)
}

/// `[log] audit` alone decides about the audit, whatever `level` is.
fn filter_with(level: &str, audit: bool) -> Result<EnvFilter, LogError> {
    let own = if audit { LevelFilter::INFO } else { LevelFilter::OFF };
    filter(&format!("{level},{}={own}", audit::TARGET))
}

fn is_audit(event: &Metadata<'_>) -> bool {
    event.target() == audit::TARGET
}

fn resolve(format: Format) -> Format {
    if format == Format::Auto && journal::is_stderr() { Format::Journald } else { format }
}

/// Queues each event as one line. Lost lines of the audit are counted apart from the others.
#[derive(Debug, Clone, Copy)]
struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = LineBuffer;

    fn make_writer(&self) -> LineBuffer {
        stderr::writer().line()
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> LineBuffer {
        if is_audit(event) { audit::writer().line() } else { self.make_writer() }
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{Level, enabled};

    use super::*;

    fn logs(level: &str, audit: bool) -> [bool; 2] {
        let subscriber = tracing_subscriber::registry().with(filter_with(level, audit).unwrap());
        with_default(subscriber, || {
            [enabled!(target: audit::TARGET, Level::INFO), enabled!(target: "devbox_secretsd", Level::INFO)]
        })
    }

    #[test]
    fn the_audit_is_logged_at_every_level_unless_it_is_turned_off() {
        for level in ["error", "off", "audit=off", "warn,audit=error"] {
            assert_eq!(logs(level, true), [true, false], "{level}");
            assert_eq!(logs(level, false), [false, false], "{level}");
        }
        assert_eq!(logs("trace", false), [false, true]);
        assert_eq!(logs("info", true), [true, true]);
    }
}
