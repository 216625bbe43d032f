//! Lines for systemd-journald on stderr: each begins with its priority (sd-daemon(3)), so that `journalctl -p warning` finds it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use devbox_secrets_common::log_writer::LineBuffer;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether stderr is the journal's: `$JOURNAL_STREAM` is device and inode of its stream (systemd.exec(5)); a redirected
/// stderr is another.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Standard error, where the journal may be the one that reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr {
    pub(super) is_journal: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Event<LineBuffer>;

    fn make_writer(&'a self) -> Self::Writer {
        Event { priority: None, to: super::writer().line() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let priority = self.is_journal.then(|| priority(*event.level()));
        Event { priority, to: super::writer().line() }
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Takes one event, whole.
#[derive(Debug)]
pub(super) struct Event<W> {
    priority: Option<&'static str>,
    to: W,
}

impl<W: Write> Write for Event<W> {
    /// The journal takes each line for an entry, and what one begins with for its priority: an event is one line, so that
    /// nothing that it tells of others can begin one.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let Some(priority) = self.priority else {
            self.to.write_all(event)?;
            return Ok(event.len());
        };
        let told =
            event.trim_ascii_end().iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
        let line: Vec<u8> = priority.bytes().chain(told).chain([b'\n']).collect();
        self.to.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(priority: Option<&'static str>, event: &[u8]) -> Vec<u8> {
        let mut to = Vec::new();
        Event { priority, to: &mut to }.write_all(event).unwrap();
        to
    }

    #[test]
    fn an_event_for_the_journal_is_one_line_with_its_priority_whatever_it_tells() {
        let event = b"refused error=bad:\n<0>forged\r\x1b[2J from=me\n";
        assert_eq!(
            written(Some(priority(Level::WARN)), event),
            b"<4>refused error=bad: <0>forged  [2J from=me\n"
        );
    }

    #[test]
    fn an_event_for_anybody_else_stays_as_it_is() {
        assert_eq!(written(None, b"{\"level\":\"WARN\"}\n"), b"{\"level\":\"WARN\"}\n");
    }
}
