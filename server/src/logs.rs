//! Logs go to stderr: for people on a terminal, one JSON object a line otherwise, with its priority where the journal reads it
//! (`journal`). No log statement of this program is given a value, a token, a header or a body.

mod journal;

use std::io::IsTerminal;
use std::str::FromStr;

use journal::Stderr;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// [`LogFormat::Human`] where stderr is a terminal, else [`LogFormat::Json`].
    #[default]
    Auto,
    /// Text, coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("the formats are \"auto\", \"human\" and \"json\""),
        }
    }
}

/// What to log, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LevelFilter,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: LevelFilter::INFO }
    }
}

/// Parses a level's name.
///
/// # Errors
/// The names there are.
pub fn parse_level(text: &str) -> Result<LevelFilter, &'static str> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("the levels are \"error\", \"warn\", \"info\", \"debug\" and \"trace\""),
    }
}

/// Starts logging. `RUST_LOG`, if it is a level's name, goes before the configured level.
pub fn start(config: LogConfig) {
    let environment = std::env::var("RUST_LOG").ok().and_then(|level| parse_level(&level).ok());
    let level = environment.unwrap_or(config.level);
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    // A logger that is already there (in tests) stays.
    let _ = if json {
        builder(level).json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder(level).with_ansi(terminal).with_target(false).try_init()
    };
}

type Builder = SubscriberBuilder<DefaultFields, Format, EnvFilter, Stderr>;

fn builder(level: LevelFilter) -> Builder {
    let stderr = Stderr { is_journal: journal::is_stderr() };
    tracing_subscriber::fmt().with_writer(stderr).with_env_filter(EnvFilter::new(directives(level)))
}

/// Libraries log at most at `info`, whoever asks for more: at `debug` and `trace` they show frames and rows.
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
    fn levels_and_formats_have_names() {
        assert_eq!(parse_level("trace"), Ok(LevelFilter::TRACE));
        assert!(parse_level("loud").is_err());
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
