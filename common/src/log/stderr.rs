//! The process's standard error. Every line passes one bounded queue, so that no caller ever waits
//! for its reader.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;

use super::journal;
use super::writer::LogWriter;

/// Time for the last lines of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

static LINES: LazyLock<LogWriter> = LazyLock::new(LogWriter::new);
static HAS_STARTED: Mutex<bool> = Mutex::new(false);

/// The queue. Its lines wait until [`start`].
#[must_use]
pub fn writer() -> &'static LogWriter {
    &LINES
}

/// Starts the thread that writes the queued lines. Call it after the process has confined itself:
/// the thread inherits the caller's capabilities and Landlock domain. Calling it again is harmless.
///
/// # Errors
/// If the descriptor cannot be duplicated, or the thread does not start (`RLIMIT_NPROC`).
pub fn start() -> io::Result<()> {
    let mut has_started = HAS_STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*has_started {
        // A descriptor of its own: a thread that blocks in `io::stderr()` would hold the lock that
        // `eprintln!` takes.
        LINES.start(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
        *has_started = true;
    }
    Ok(())
}

/// Reports panics through the queue. The default hook writes to standard error itself, and would
/// block.
pub fn take_panics(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| report_failure(program, &panicked(panic))));
}

/// A formatted message may quote a value the code was working on, so only a literal one is
/// reported.
fn panicked(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("a formatted message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("panicked at {place}: {message}")
}

/// Prints why `program` fails, at any log level: each line of `text` with the program's name, and
/// with its priority if the journal reads it. As [`report_last`], it waits a second at most.
pub fn report_failure(program: &str, text: &str) {
    let priority = if journal::is_stderr() { journal::priority(Level::ERROR) } else { "" };
    let lines: Vec<String> = text.lines().map(|line| format!("{priority}{program}: {line}")).collect();
    report_last(&lines.join("\n"));
}

/// Prints `text` after everything that is queued. It waits a second at most, even if nobody reads.
pub fn report_last(text: &str) {
    LINES.put(format!("{text}\n").into_bytes());
    flush();
}

/// Waits until everything queued is written, for a second at most.
pub fn flush() {
    let is_written = LINES.flush(Duration::ZERO);
    // A line lost here has no other place to go.
    if !is_written && start().is_ok() {
        let _ = LINES.flush(LAST_LINES);
    }
}
