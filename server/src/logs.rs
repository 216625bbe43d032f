//! Logs go to stderr: for people on a terminal, one JSON object a line otherwise. No log statement of this program is
//! given a value, a token, a header or a body.

use std::io::IsTerminal;
use std::str::FromStr;

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

/// Starts logging. `RUST_LOG` overrides the level, by module where it says so.
pub fn start(config: LogConfig) {
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    // A logger that is already there (in tests) stays.
    let _ = if json {
        builder(config.level).json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder(config.level).with_ansi(terminal).with_target(false).try_init()
    };
}

type Builder = SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> std::io::Stderr>;

fn builder(level: LevelFilter) -> Builder {
    // Libraries log at most at `info`: what hyper, h2 and sqlx say at `debug` and `trace` may hold frames and rows.
    let libraries = level.min(LevelFilter::INFO);
    let ours = format!("{libraries},devbox_secrets_server={level},devbox_secrets_proto={level}");
    let filter = std::env::var("RUST_LOG").ok().and_then(|spec| EnvFilter::try_new(capped(&spec)).ok());
    let stderr: fn() -> std::io::Stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(ours)))
}

/// `RUST_LOG` may ask for more of this program, never for the libraries' frames.
fn capped(spec: &str) -> String {
    let libraries = ["h2", "hyper", "hyper_util", "rustls", "sqlx", "tower", "axum"];
    libraries.iter().fold(spec.to_owned(), |spec, library| format!("{spec},{library}=info"))
}
