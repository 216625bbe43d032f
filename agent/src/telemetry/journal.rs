//! Lines for systemd-journald on stderr: one an event, message and fields together, so that `journalctl -u` shows both. Each
//! begins with its priority (sd-daemon(3)).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// What a line of the worst that can happen begins with.
pub const ERROR: &str = "<3>";
const WARNING: &str = "<4>";
const INFORMATION: &str = "<6>";
const DEBUG: &str = "<7>";

/// Whether stderr is the journal's: `$JOURNAL_STREAM` is device and inode of its stream (systemd.exec(5)); a redirected
/// stderr is another.
#[must_use]
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Writes events to a journal that reads what `W` writes.
#[derive(Debug)]
pub(super) struct Journal<W>(pub(super) W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Journal<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { priority: INFORMATION, journal: self.0.make_writer() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        Line { priority: priority(*event.level()), journal: self.0.make_writer() }
    }
}

/// What a line of this level begins with (sd-daemon(3)).
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => INFORMATION,
        Level::DEBUG | Level::TRACE => DEBUG,
    }
}

/// Takes one event, whole.
#[derive(Debug)]
pub(super) struct Line<W> {
    priority: &'static str,
    journal: W,
}

impl<W: Write> Write for Line<W> {
    /// The journal takes each line for an entry, and what one begins with for its priority: nothing that is told of others can
    /// begin one.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let told =
            event.trim_ascii_end().iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
        let line: Vec<u8> = self.priority.bytes().chain(told).chain([b'\n']).collect();
        self.journal.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.journal.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_priority_whatever_it_tells() {
        let mut journal = Vec::new();
        let mut line = Line { priority: WARNING, journal: &mut journal };
        line.write_all(b"not joined yet error=refused:\n<0>forged\r\x1b[2J retry_in_ms=100\n").unwrap();
        assert_eq!(journal, b"<4>not joined yet error=refused: <0>forged  [2J retry_in_ms=100\n");
    }
}
