//! Lines for systemd-journald on standard error: one an event, with its priority (sd-daemon(3)), so
//! that `journalctl -p warning` finds it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether the journal reads standard error: `$JOURNAL_STREAM` is device and inode of its stream
/// (systemd.exec(5)), which a redirected standard error is not.
#[must_use]
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// The prefix of a line of this level.
#[must_use]
pub fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A writer which the journal may read.
#[derive(Debug)]
pub(super) struct Journal<W> {
    pub(super) is_read: bool,
    pub(super) writer: W,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Journal<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { priority: self.is_read.then(|| priority(Level::INFO)), writer: self.writer.make_writer() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let priority = self.is_read.then(|| priority(*event.level()));
        Line { priority, writer: self.writer.make_writer_for(event) }
    }
}

#[derive(Debug)]
pub(super) struct Line<W> {
    priority: Option<&'static str>,
    writer: W,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let Some(priority) = self.priority else {
            self.writer.write_all(event)?;
            return Ok(event.len());
        };
        // Each line is an entry, and its prefix a priority: text from outside must not start a
        // second one.
        let text =
            event.trim_ascii_end().iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
        let line: Vec<u8> = priority.bytes().chain(text).chain([b'\n']).collect();
        self.writer.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(priority: Option<&'static str>, event: &[u8]) -> Vec<u8> {
        let mut writer = Vec::new();
        Line { priority, writer: &mut writer }.write_all(event).unwrap();
        writer
    }

    #[test]
    fn an_event_for_the_journal_is_one_line_with_its_priority_whatever_it_quotes() {
        let event = b"not joined yet error=refused:\n<0>forged\r\x1b[2J retry_in_ms=100\n";
        assert_eq!(
            written(Some(priority(Level::WARN)), event),
            b"<4>not joined yet error=refused: <0>forged  [2J retry_in_ms=100\n"
        );
    }

    #[test]
    fn an_event_for_another_reader_is_written_unchanged() {
        assert_eq!(written(None, b"{\"level\":\"WARN\"}\n"), b"{\"level\":\"WARN\"}\n");
    }
}
