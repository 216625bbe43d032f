//! Logs go to stderr: for people on a terminal, one JSON object a line otherwise, with its priority if the journal reads it
//! (`journal`). No log statement of this program is given a value, a token, a header or a body.
//!
//! All that the program writes to stderr goes through one queue ([`writer`]), so that no request, no signal and no panic waits
//! for a reader of the log that has stopped reading.

mod journal;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use devbox_secrets_common::log_writer::LogWriter;
use journal::Stderr;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::reload::Handle;

/// Longest wait for the reader of stderr at the end of the process.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

static WRITER: LazyLock<LogWriter> = LazyLock::new(LogWriter::new);

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

/// The queue in front of stderr. Its thread does not run before [`start_writer`].
#[must_use]
pub fn writer() -> &'static LogWriter {
    &WRITER
}

/// Starts the thread that writes to stderr, and reports panics through it. Call once, after the process is hardened.
///
/// # Errors
/// If the thread does not start (`RLIMIT_NPROC`).
pub fn start_writer() -> io::Result<()> {
    std::panic::set_hook(Box::new(report_panic));
    writer().start(io::stderr())
}

/// Writes `text` and everything queued before it. Lines that stderr does not take within two seconds are lost.
pub fn report_last(text: &str) {
    writer().put(format!("{text}\n").into_bytes());
    flush();
}

/// Waits for stderr to take what is queued, for at most two seconds: the last act of the process.
pub fn flush() {
    // False if the reader has stopped: waiting longer would only keep the process from ending.
    let _ = writer().flush(FLUSH_PATIENCE);
}

/// A formatted message may hold what the code was working on, so only a literal one is reported.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("a formatted message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    report_last(&format!("devbox-secrets-server: panicked at {place}: {message}"));
}

/// `error` and its causes, on one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Changes the level of a logger that [`start`] has set.
type SetLevel = Box<dyn Fn(LevelFilter) + Send + Sync>;

static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Starts logging. `RUST_LOG`, if it is a level's name, goes before the configured level.
pub fn start(config: LogConfig) {
    let level = effective(config.level);
    let terminal = io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    if json {
        let builder = builder(level).json().flatten_event(true).with_span_list(false).with_filter_reloading();
        keep(builder.reload_handle(), builder.try_init());
    } else {
        let builder = builder(level).with_ansi(terminal).with_target(false).with_filter_reloading();
        keep(builder.reload_handle(), builder.try_init());
    }
}

/// Logs from now on at `level`, unless `RUST_LOG` has another.
pub fn set_level(level: LevelFilter) {
    if let Some(set) = SET_LEVEL.get() {
        set(effective(level));
    }
}

fn effective(level: LevelFilter) -> LevelFilter {
    let environment = std::env::var("RUST_LOG").ok().and_then(|level| parse_level(&level).ok());
    environment.unwrap_or(level)
}

/// A logger that is already there (in tests) stays, with its level.
fn keep<S: 'static, E>(handle: Handle<EnvFilter, S>, started: Result<(), E>) {
    if started.is_ok() {
        // Fails if the subscriber has gone, which lives as long as the process.
        let _ = SET_LEVEL.set(Box::new(move |level| drop(handle.reload(EnvFilter::new(directives(level))))));
    }
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
