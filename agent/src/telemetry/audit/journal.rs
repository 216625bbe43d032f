//! The audit's events as entries of systemd-journald, each with its fields:
//! `journalctl DEVBOX_EVENT=refusal -o json`.
//!
//! tracing-journald is not used: it blocks if the journal does not read, and ignores lost events.
//! Here a send never blocks, a line on standard error replaces the entry if there is no journal,
//! and lost events are counted ([`dropped`]). The socket is not connected, because a restarted
//! journal is another peer under the same path.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use devbox_secrets_common::log::{LogWriter, journal, stderr};
use devbox_secrets_common::text::one_line;
use nix::errno::Errno;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Kind;

/// The journal's socket for entries (systemd-journald.service(8)).
const SOCKET: &str = "/run/systemd/journal/socket";

const OF_PEER: [&str; 5] = ["uid", "gid", "pid", "unit", "executable"];

/// Events of the process's one log that the journal did not take.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static WRITER: LazyLock<LogWriter> = LazyLock::new(|| stderr::writer().counted_apart());

/// The audit's handle on standard error, which counts its lost lines.
pub(in crate::telemetry) fn writer() -> LogWriter {
    WRITER.clone()
}

/// Audit events that neither the journal nor standard error took since the process started.
#[must_use]
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed) + WRITER.lost()
}

/// Sends events to the journal. It makes its socket at once, before the process confines itself.
#[derive(Debug)]
pub(in crate::telemetry) struct JournalLayer {
    journal: PathBuf,
    /// `None` if the kernel gave no socket.
    socket: Option<UnixDatagram>,
    entry: Mutex<Entry>,
    instead: LogWriter,
}

impl JournalLayer {
    pub(in crate::telemetry) fn new(instead: LogWriter) -> Self {
        Self::at(Path::new(SOCKET), instead)
    }

    fn at(journal: &Path, instead: LogWriter) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Self { journal: journal.to_owned(), socket: socket.ok(), entry: Mutex::default(), instead }
    }

    fn deliver(&self, level: Level, entry: &Entry) -> io::Result<()> {
        let sent = match &self.socket {
            Some(socket) => socket.send_to(entry.fields(), &self.journal).map(drop),
            None => Err(ErrorKind::NotFound.into()),
        };
        match sent {
            // A journal that does not read its socket does not read standard error either.
            Err(error) if is_full(&error) => Err(error),
            Err(_) => {
                // A queue: a line on standard error must not block a launch either.
                self.instead.put(format!("{}{}\n", journal::priority(level), entry.line()).into_bytes());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // One buffer for all events: an event allocates only if it is longer than all before it.
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        entry.encode(event);
        if self.deliver(*event.metadata().level(), &entry).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// One encoded event. Its buffers are reused for the next one.
#[derive(Debug, Default)]
struct Entry {
    fields: Vec<u8>,
    line: String,
    value: String,
}

impl Entry {
    /// Encodes `event` in place of the previous one.
    fn encode(&mut self, event: &Event<'_>) {
        self.fields.clear();
        self.line.clear();
        event.record(&mut *self);
        let line = std::mem::take(&mut self.line);
        self.field("MESSAGE", &line);
        self.line = line;
        self.field("PRIORITY", priority(*event.metadata().level()));
        self.field("SYSLOG_IDENTIFIER", "devbox-secretsd");
    }

    fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Message and fields, as `journalctl -u` shows them: one line, without a line end.
    fn line(&self) -> &str {
        &self.line
    }

    fn field(&mut self, name: &str, value: &str) {
        self.fields.extend_from_slice(name.as_bytes());
        self.assign(value);
    }

    /// A value with a line break is preceded by its length, so that it cannot start a field.
    fn assign(&mut self, value: &str) {
        if value.contains('\n') {
            self.fields.push(b'\n');
            self.fields.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.fields.push(b'=');
        }
        self.fields.extend_from_slice(value.as_bytes());
        self.fields.push(b'\n');
    }

    /// `uid` becomes `DEVBOX_PEER_UID`, `revision` `DEVBOX_REVISION`.
    fn own(&mut self, name: &str, value: &str) {
        let prefix = if OF_PEER.contains(&name) { "DEVBOX_PEER_" } else { "DEVBOX_" };
        self.fields.extend_from_slice(prefix.as_bytes());
        self.fields.extend(name.bytes().map(|byte| byte.to_ascii_uppercase()));
        self.assign(value);
    }

    fn take(&mut self, name: &str, value: &str) {
        match name {
            "message" => {
                // The first of all fields: the line starts with it.
                self.line.extend(one_line(value));
                return;
            }
            "event" => {
                if let Some(kind) = Kind::of(value) {
                    self.field("MESSAGE_ID", kind.message_id());
                }
            }
            // Many messages end with it.
            "reason" if self.line.contains(value) => {}
            name => {
                let _ = write!(self.line, " {name}=");
                self.line.extend(one_line(value));
            }
        }
        self.own(name, value);
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = std::mem::take(&mut self.value);
        text.clear();
        let _ = write!(text, "{value:?}");
        self.take(field.name(), &text);
        self.value = text;
    }
}

/// The number of a line's priority, without its brackets.
fn priority(level: Level) -> &'static str {
    journal::priority(level).trim_matches(['<', '>'])
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::audit;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Returns the lines that `log` brings to standard error while the journal is at `journal`.
    fn logged(journal: &Path, log: impl FnOnce()) -> Vec<String> {
        let stderr = LogWriter::new();
        let layer = JournalLayer::at(journal, stderr.clone());
        with_default(tracing_subscriber::registry().with(layer), log);
        let (mut reader, pipe) = io::pipe().unwrap();
        stderr.put(b"end\n".to_vec());
        stderr.start(pipe).unwrap();
        assert!(stderr.flush(PATIENCE));
        let mut text = String::new();
        while !text.ends_with("end\n") {
            let mut room = [0; 4_096];
            let len = reader.read(&mut room).unwrap();
            text += std::str::from_utf8(&room[..len]).unwrap();
        }
        text.lines().map(str::to_owned).filter(|line| line != "end").collect()
    }

    fn received(journal: &UnixDatagram) -> String {
        let mut room = [0; 4_096];
        let len = journal.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..len]).into_owned()
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields_and_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let unit: Option<&str> = None;
        let lines = logged(&path, || {
            audit!(info, Kind::Launch, uid = 7, unit, names = "*", revision = 3_u64, "launch");
        });
        assert_eq!(lines, [""; 0]);
        let entry = received(&journal);
        let mut fields: Vec<&str> = entry.lines().collect();
        fields.sort_unstable();
        let id = format!("MESSAGE_ID={}", Kind::Launch.message_id());
        let expected = [
            "DEVBOX_EVENT=launch",
            "DEVBOX_NAMES=*",
            "DEVBOX_PEER_UID=7",
            "DEVBOX_REVISION=3",
            "MESSAGE=launch uid=7 names=* revision=3",
            id.as_str(),
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=devbox-secretsd",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn text_from_outside_starts_no_field_and_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        logged(&path, || {
            audit!(warn, Kind::Refusal, name = "A\nDEVBOX_EVENT=launch", "launch refused");
        });
        let entry = received(&journal);
        assert!(entry.contains("DEVBOX_NAME\n\u{15}\0\0\0\0\0\0\0A\nDEVBOX_EVENT=launch\n"), "{entry:?}");
        assert!(entry.contains("MESSAGE=launch refused name=A DEVBOX_EVENT=launch\n"), "{entry:?}");
    }

    #[test]
    fn without_a_journal_an_event_is_a_line_and_a_new_journal_gets_the_next_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let lines = logged(&path, || {
            audit!(warn, Kind::Refusal, "first");
            let old = UnixDatagram::bind(&path).unwrap();
            audit!(info, Kind::Launch, "second");
            assert!(received(&old).contains("MESSAGE=second\n"));
            drop(old);
            audit!(info, Kind::Launch, "third");
            std::fs::remove_file(&path).unwrap();
            let new = UnixDatagram::bind(&path).unwrap();
            audit!(info, Kind::Launch, "fourth");
            assert!(received(&new).contains("MESSAGE=fourth\n"));
        });
        assert_eq!(lines, ["<4>first", "<6>third"]);
    }

    #[test]
    fn a_journal_that_does_not_read_blocks_no_caller_and_lost_events_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _silent = UnixDatagram::bind(&path).unwrap();
        let before = dropped();
        let lines = logged(&path, || {
            while dropped() == before {
                audit!(info, Kind::Launch, "launch");
            }
        });
        assert_eq!(lines, [""; 0]);
    }
}
