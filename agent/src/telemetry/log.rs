//! Log lines: human on a terminal, JSON otherwise, text with priorities where stderr is the journal.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use super::journal::{self, Journal};

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

/// Starts the process's one log.
///
/// # Errors
/// [`LogError`].
pub fn start(level: &str, format: Format) -> Result<(), LogError> {
    let registry = tracing_subscriber::registry().with(filter(level)?);
    let stderr = || fmt::layer().with_writer(io::stderr);
    let started = match resolve(format) {
        Format::Journald => {
            let text = fmt::layer().with_writer(Journal(io::stderr)).with_ansi(false);
            registry.with(text.without_time().with_level(false).with_target(false)).try_init()
        }
        Format::Json => registry.with(stderr().json().flatten_event(true)).try_init(),
        Format::Human | Format::Auto => {
            registry.with(stderr().with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
    };
    started.map_err(LogError::Installed)
}

fn resolve(format: Format) -> Format {
    match format {
        Format::Auto if journal::is_stderr() => Format::Journald,
        Format::Auto if !io::stderr().is_terminal() => Format::Json,
        Format::Auto => Format::Human,
        chosen => chosen,
    }
}
