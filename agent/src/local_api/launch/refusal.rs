//! The ways in which a launch fails. A refusal has a code for programs and one line for people, never a value.

use std::io;

use devbox_launch_proto::{ErrorCode, LARGEST_ROOM, MAX_ERROR_LEN};

use crate::access::authorize::Decision;
use crate::access::peer::{Peer, is_anonymous_user};
use crate::memory::Unavailable;

/// Longest part of a name from a request that a message repeats, in characters.
const MAX_QUOTED: usize = 128;

#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon refuses, and the launcher learns why.
    Refused(Refusal),
    Gone,
    /// The secrets may have changed while the answer was made, and none was sent: it is made anew.
    Outdated,
    /// The launcher did not send its request, or did not read its answer, in time.
    Slow(&'static str),
}

/// Reading from and writing to a connected Unix socket fails only if the peer has gone.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    /// A stable word for metrics: the code's, or that of the loss behind it.
    reason: &'static str,
    text: String,
    name: Option<String>,
    /// Why each rule does not grant it: for the audit log, never for the peer.
    reasons: Option<String>,
}

impl Refusal {
    /// `text` has the problem and the remedy. Control characters are replaced, and it is cut to
    /// [`MAX_ERROR_LEN`] bytes.
    pub(super) fn new(code: ErrorCode, text: &str) -> Self {
        let mut text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        text.truncate(text.floor_char_boundary(MAX_ERROR_LEN as usize));
        Self { code, reason: code.word(), text, name: None, reasons: None }
    }

    pub(super) fn invalid(text: &str) -> Self {
        Self::new(ErrorCode::Invalid, text)
    }

    pub(super) fn no_rule(decision: &Decision) -> Self {
        let Peer { uid, gid, .. } = decision.peer();
        let text = format!(
            "no rule grants anything to uid {uid}, gid {gid}: add a [[rule]] with uid = {uid} (or gid = {gid}) and env = \
             [\"NAME\", …] to the daemon's agent.toml"
        );
        Self::denied(decision, None, &text)
    }

    pub(super) fn not_granted(name: &[u8], guarded: bool, decision: &Decision) -> Self {
        let Peer { uid, gid, .. } = decision.peer();
        let name = quoted(name);
        let how = if guarded {
            "; it steers what programs load or run, so no pattern grants it, only its exact name"
        } else {
            ""
        };
        let text = format!(
            "no rule grants {name} to uid {uid}, gid {gid}: add \"{name}\" to the env of a [[rule]] with uid = {uid} (or \
             gid = {gid}) in the daemon's agent.toml{how}"
        );
        Self::denied(decision, Some(name), &text)
    }

    fn denied(decision: &Decision, name: Option<String>, text: &str) -> Self {
        let uid = decision.peer().uid;
        let reasons = Some(decision.why_not(name.as_deref()));
        let refusal = if is_anonymous_user(uid) {
            Self::new(ErrorCode::Denied, &unmapped(uid))
        } else {
            Self::new(ErrorCode::Denied, text)
        };
        Self { name, reasons, ..refusal }
    }

    pub(super) fn missing(name: &[u8]) -> Self {
        let name = quoted(name);
        let text = format!(
            "this devbox has no variable {name}: bind a secret to that name, or correct the name (devbox-exec --list shows \
             what there is)"
        );
        Self::new(ErrorCode::Missing, &text)
    }

    pub(super) fn busy(uid: u32) -> Self {
        let text = format!(
            "uid {uid} has its share of launches that are under way, or whose answers it has not read: try again when some \
             have ended"
        );
        Self::new(ErrorCode::Busy, &text)
    }

    /// No `execve(2)` takes so much.
    pub(super) fn too_large(needed: usize, largest: &str) -> Self {
        let text = format!(
            "the launch's variables need {needed} bytes, and execve(2) takes no more than {LARGEST_ROOM}; the largest are \
             {largest}: leave some out by --except, or name those that are needed by --only"
        );
        Self::invalid(&text)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A stable word for metrics.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn reasons(&self) -> Option<&str> {
        self.reasons.as_deref()
    }
}

/// The message for the uid by which the daemon's user namespace shows all users it does not map: no
/// rule can name it.
fn unmapped(uid: u32) -> String {
    format!(
        "the daemon's user namespace does not map this process's user (it shows as uid {uid}, as every such user does): map \
         it, or run the daemon outside the namespace"
    )
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
    use crate::access::policy::Policy;

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
        let decision = Decision::about_ids(&Policy::default(), Peer { uid: 1000, gid: 100, pid: 1 });
        assert!(Refusal::no_rule(&decision).text().contains("[[rule]] with uid = 1000 (or gid = 100)"));
        let refusal = Refusal::not_granted(b"PATH", true, &decision);
        assert!(refusal.text().contains("add \"PATH\" to the env") && refusal.text().contains("exact name"));
    }
}
