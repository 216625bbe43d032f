//! One event in systemd-journald's native form (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>), and
//! as a line of text.

use std::fmt::{self, Write as _};

use devbox_secrets_common::log::journal;
use devbox_secrets_common::text::one_line;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Kind;

const OF_PEER: [&str; 5] = ["uid", "gid", "pid", "unit", "executable"];

/// One encoded event. Its buffers are reused for the next one.
#[derive(Debug, Default)]
pub(super) struct Entry {
    fields: Vec<u8>,
    line: String,
    value: String,
}

impl Entry {
    /// Encodes `event` in place of the previous one.
    pub(super) fn encode(&mut self, event: &Event<'_>) {
        self.fields.clear();
        self.line.clear();
        event.record(&mut *self);
        let line = std::mem::take(&mut self.line);
        self.field("MESSAGE", &line);
        self.line = line;
        self.field("PRIORITY", priority(*event.metadata().level()));
        self.field("SYSLOG_IDENTIFIER", "devbox-secretsd");
    }

    pub(super) fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Message and fields, as `journalctl -u` shows them: one line, without a line end.
    pub(super) fn line(&self) -> &str {
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
