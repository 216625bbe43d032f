//! Log lines: human on a terminal, JSON otherwise, text with priorities where stderr is the journal.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use super::audit::{self, JournalLayer};
use super::journal::{self, Journal};
use super::stderr::Stderr;

/// What is logged where nothing is said.
pub const DEFAULT_LEVEL: &str = "info";

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Chosen by what stderr is.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// Text for systemd-journald, which adds time and priority to it.
    Journald,
}

impl Format {
    /// As in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
            Self::Journald => "journald",
        }
    }
}

/// Why a text names no format.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("a log format is auto, human, json or journald")]
pub struct InvalidFormat;

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            _ => Err(InvalidFormat),
        }
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level is no filter.
    #[error("the log level is none: write error, warn, info, debug, trace, or target=level,…")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("a log is already set up in this process")]
    Installed(#[source] TryInitError),
}

/// Checks a level as [`start`] will.
///
/// # Errors
/// [`LogError::Level`].
pub fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(LogError::Level)
}

/// Starts the process's one log. `audit`: whether the events of the audit are logged, at any `level`. Lines wait in a queue
/// until [`stderr::start`](super::stderr::start).
///
/// # Errors
/// [`LogError`].
pub fn start(level: &str, format: Format, audit: bool) -> Result<(), LogError> {
    let registry = tracing_subscriber::registry().with(filter_with(level, audit)?);
    let stderr = || fmt::layer().with_writer(Stderr);
    let started = match resolve(format) {
        Format::Journald => {
            let text = fmt::layer().with_writer(Journal(Stderr)).with_ansi(false);
            let text = text.without_time().with_level(false).with_target(false);
            let audit = JournalLayer::new(super::stderr::audit()).with_filter(filter_fn(is_audit));
            registry.with(text.with_filter(filter_fn(|event| !is_audit(event)))).with(audit).try_init()
        }
        Format::Json => registry.with(stderr().json().flatten_event(true)).try_init(),
        Format::Human | Format::Auto => {
            registry.with(stderr().with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
    };
    started.map_err(LogError::Installed)
}

/// The audit has a level of its own, whatever `level` says of it.
fn filter_with(level: &str, audit: bool) -> Result<EnvFilter, LogError> {
    let own = if audit { LevelFilter::INFO } else { LevelFilter::OFF };
    filter(&format!("{level},{}={own}", audit::TARGET))
}

fn is_audit(event: &Metadata<'_>) -> bool {
    event.target() == audit::TARGET
}

fn resolve(format: Format) -> Format {
    match format {
        Format::Auto if journal::is_stderr() => Format::Journald,
        Format::Auto if !io::stderr().is_terminal() => Format::Json,
        Format::Auto => Format::Human,
        chosen => chosen,
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{Level, enabled};

    use super::*;

    fn tells(level: &str, audit: bool) -> [bool; 2] {
        let subscriber = tracing_subscriber::registry().with(filter_with(level, audit).unwrap());
        with_default(subscriber, || {
            [enabled!(target: audit::TARGET, Level::INFO), enabled!(target: "devbox_secretsd", Level::INFO)]
        })
    }

    #[test]
    fn the_audit_is_told_at_every_level_unless_it_is_turned_off() {
        for level in ["error", "off", "audit=off", "warn,audit=error"] {
            assert_eq!(tells(level, true), [true, false], "{level}");
            assert_eq!(tells(level, false), [false, false], "{level}");
        }
        assert_eq!(tells("trace", false), [false, true]);
        assert_eq!(tells("info", true), [true, true]);
    }
}
