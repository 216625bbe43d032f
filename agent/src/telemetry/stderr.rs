//! The process's standard error. Every line of the log passes a bounded queue, so no caller ever waits for its reader.
//!
//! Lines that are lost are counted: those of the audit (`audit_lost`) apart from the others (`lost`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use devbox_secrets_common::log_writer::{LineBuffer, LogWriter};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::audit;

/// Time for the last lines when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

static LINES: LazyLock<LogWriter> = LazyLock::new(LogWriter::new);
static AUDIT: LazyLock<LogWriter> = LazyLock::new(|| LINES.counted_apart());
static HAS_STARTED: Mutex<bool> = Mutex::new(false);

/// Starts the thread that writes what is queued. Call once the process has confined itself: the thread inherits the
/// caller's capabilities and Landlock domain. Calling it again is harmless.
///
/// # Errors
/// There is no descriptor or no thread to be had.
pub fn start() -> io::Result<()> {
    let mut has_started = HAS_STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*has_started {
        // A descriptor of its own: a thread that blocks in `io::stderr()` would hold the lock that `eprintln!` takes.
        LINES.start(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
        *has_started = true;
    }
    Ok(())
}

/// Lets a panic be logged as any other line. The default hook writes to standard error itself, and would block.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|panic| last_words(&format!("{panic}\n"))));
}

/// Prints `text`, lines with their ends, after everything that is queued. At most a second passes, whether or not
/// somebody reads.
pub fn last_words(text: &str) {
    LINES.put(text.as_bytes().to_vec());
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

/// Lines of the log, the audit's aside, that standard error did not take since the process started.
#[must_use]
pub fn lost() -> u64 {
    LINES.lost()
}

/// The same of the audit's lines.
pub(super) fn audit_lost() -> u64 {
    AUDIT.lost()
}

/// The audit's handle on standard error.
pub(super) fn audit() -> LogWriter {
    AUDIT.clone()
}

/// Queues each event as one line, counted by its target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = LineBuffer;

    fn make_writer(&self) -> LineBuffer {
        LINES.line()
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> LineBuffer {
        if event.target() == audit::TARGET { AUDIT.line() } else { LINES.line() }
    }
}
