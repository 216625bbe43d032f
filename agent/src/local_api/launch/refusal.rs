//! Refusals: a code for programs, one line for people, never a value.

use devbox_launch_proto::{ErrorCode, LARGEST_ROOM, MAX_ERROR_LEN};

use crate::access::peer::{Peer, is_anonymous_user};
use crate::memory::Unavailable;

/// Longest part of a name from a request that a message repeats, in characters.
const MAX_QUOTED: usize = 128;

/// Why a launch gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    /// A stable word for metrics: the code's, or that of the loss behind it.
    reason: &'static str,
    text: String,
    /// The name that is denied.
    name: Option<String>,
    /// Why each rule does not grant it: for the audit log, never for the peer.
    reasons: Option<String>,
}

impl Refusal {
    /// `text` says what is wrong and what to do. It is made one line without control characters, of at most
    /// [`MAX_ERROR_LEN`] bytes.
    pub(super) fn new(code: ErrorCode, text: &str) -> Self {
        let mut text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        text.truncate(text.floor_char_boundary(MAX_ERROR_LEN as usize));
        Self { code, reason: code.word(), text, name: None, reasons: None }
    }

    pub(super) fn invalid(text: &str) -> Self {
        Self::new(ErrorCode::Invalid, text)
    }

    /// No rule is about this peer.
    pub(super) fn no_rule(peer: Peer) -> Self {
        let Peer { uid, gid, .. } = peer;
        if is_anonymous_user(uid) {
            return Self::anonymous(uid);
        }
        let text = format!(
            "no rule grants anything to uid {uid}, gid {gid}: add a [[rule]] with uid = {uid} (or gid = {gid}) and env = \
             [\"NAME\", …] to the daemon's agent.toml"
        );
        Self::new(ErrorCode::Denied, &text)
    }

    /// The peer shows as the uid of everybody whom the daemon's user namespace does not map: no rule can name it.
    fn anonymous(uid: u32) -> Self {
        let text = format!(
            "the daemon's user namespace does not map this process's user (it shows as uid {uid}, as every such user does): map \
             it, or run the daemon outside the namespace"
        );
        Self::new(ErrorCode::Denied, &text)
    }

    /// No rule grants this name to this peer.
    pub(super) fn not_granted(name: &[u8], guarded: bool, peer: Peer) -> Self {
        let (name, uid, gid) = (quoted(name), peer.uid, peer.gid);
        if is_anonymous_user(uid) {
            return Self { name: Some(name), ..Self::anonymous(uid) };
        }
        let how = if guarded {
            "; it steers what programs load or run, so no pattern grants it, only its exact name"
        } else {
            ""
        };
        let text = format!(
            "no rule grants {name} to uid {uid}, gid {gid}: add \"{name}\" to the env of a [[rule]] with uid = {uid} (or \
             gid = {gid}) in the daemon's agent.toml{how}"
        );
        Self { name: Some(name), ..Self::new(ErrorCode::Denied, &text) }
    }

    /// There is no such variable.
    pub(super) fn missing(name: &[u8]) -> Self {
        let name = quoted(name);
        let text = format!(
            "this devbox has no variable {name}: bind a secret to that name, or correct the name (devbox-exec --list shows \
             what there is)"
        );
        Self::new(ErrorCode::Missing, &text)
    }

    /// All places that this user may have are taken.
    pub(super) fn busy(uid: u32) -> Self {
        let text = format!(
            "uid {uid} has its share of launches that are under way, or whose answers it has not read: try again when some \
             have ended"
        );
        Self::new(ErrorCode::Busy, &text)
    }

    /// No command could be started with so much.
    pub(super) fn too_large(needed: usize, largest: &str) -> Self {
        let text = format!(
            "the launch's variables need {needed} bytes, and execve(2) takes no more than {LARGEST_ROOM}; the largest are \
             {largest}: leave some out by --except, or name those that are needed by --only"
        );
        Self::invalid(&text)
    }

    /// What the peer is told.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A stable word for metrics.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The name that is denied, where it is about one.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Why each rule does not grant it.
    pub(super) fn reasons(&self) -> Option<&str> {
        self.reasons.as_deref()
    }

    pub(super) fn with_reasons(self, reasons: String) -> Self {
        Self { reasons: Some(reasons), ..self }
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        let loss = unavailable.loss;
        Self { reason: loss.word(), ..Self::new(loss.code(), &unavailable.reason) }
    }
}

/// A name from a request, as a message can repeat it.
pub(super) fn quoted(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut chars = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut quoted: String = chars.by_ref().take(MAX_QUOTED).collect();
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_bounded_length_whatever_the_request_names() {
        let hostile = [b"\x1b[2J\r\nA\xff".as_slice(), &[b'A'; 60_000]].concat();
        let refusal = Refusal::missing(&hostile);
        assert!(refusal.text().len() < 1_000);
        assert!(!refusal.text().chars().any(char::is_control));
        let long = Refusal::invalid(&"ä".repeat(5_000));
        assert_eq!(long.text().len(), MAX_ERROR_LEN as usize);
    }

    #[test]
    fn a_denial_names_the_rule_that_would_have_to_exist() {
        let peer = Peer { uid: 1000, gid: 100, pid: 1 };
        assert!(Refusal::no_rule(peer).text().contains("[[rule]] with uid = 1000 (or gid = 100)"));
        let refusal = Refusal::not_granted(b"PATH", true, peer);
        assert!(refusal.text().contains("add \"PATH\" to the env") && refusal.text().contains("exact name"));
    }
}
