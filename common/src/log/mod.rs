//! Log lines on standard error: for people, for programs or for systemd-journald.
//!
//! - [`Format`] and [`layer`]: the form of a line;
//! - [`stderr`]: the process's one queue in front of standard error, so that no caller waits for a
//!   reader of the log;
//! - [`LogWriter`]: such a queue;
//! - [`journal`]: priorities for the journal.

pub mod journal;
pub mod stderr;
mod writer;

pub use writer::{LineBuffer, LogWriter, Sink};

use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use journal::Journal;

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Chosen by the kind of standard error.
    #[default]
    Auto,
    /// For people, coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
    /// Text for systemd-journald, which adds time and priority.
    Journald,
}

impl Format {
    /// The name in configurations.
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

/// Why a text is not a format.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("invalid log format: use auto, human, json or journald")]
pub struct InvalidFormat;

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        let all = [Self::Auto, Self::Human, Self::Json, Self::Journald];
        all.into_iter().find(|format| format.word() == text).ok_or(InvalidFormat)
    }
}

/// Prints events to `writer`, which leads to standard error. [`Format::Auto`] is human on a
/// terminal, else JSON. If the journal reads standard error, every line has its priority.
pub fn layer<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let is_terminal = io::stderr().is_terminal();
    let is_read = format == Format::Journald || journal::is_stderr();
    let layer = fmt::layer().with_writer(Journal { is_read, writer });
    match format {
        Format::Journald => {
            layer.with_ansi(false).without_time().with_level(false).with_target(false).boxed()
        }
        Format::Auto if is_terminal => layer.with_target(false).boxed(),
        Format::Human => layer.with_target(false).with_ansi(is_terminal).boxed(),
        Format::Json | Format::Auto => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_parsed_from_its_own_word() {
        for format in [Format::Auto, Format::Human, Format::Json, Format::Journald] {
            assert_eq!(format.word().parse(), Ok(format));
        }
        assert_eq!("xml".parse::<Format>(), Err(InvalidFormat));
    }
}
