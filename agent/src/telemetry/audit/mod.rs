//! The audit: one event for each launch, each refusal and each change of the secrets.
//! `docs/audit.md` has the schema, which is stable: fields are added, and none is removed or
//! changes its meaning.
//!
//! An audit event is a log event of the target [`TARGET`] whose field `event` is a [`Kind`]'s word.
//! It is logged at every level, unless `[log] audit = false`: as a line of the log or, if
//! systemd-journald reads that, as an entry with fields. Its fields have the process, the names and
//! the reason, and never a value.

mod journal;

pub(crate) use journal::dropped;
pub(super) use journal::{JournalLayer, writer};

/// Target of the audit's events.
pub(crate) const TARGET: &str = "audit";

/// Logs one event of the audit: its level and [`Kind`], the peer that it is about, further fields,
/// and a message. `maybe_peer` takes an `Option`.
macro_rules! audit {
    ($level:ident, $kind:expr, peer = $peer:expr, $($rest:tt)+) => {{
        let peer = $peer;
        $crate::telemetry::audit::audit!(
            $level, $kind, uid = peer.uid, gid = peer.gid, pid = peer.pid, $($rest)+
        );
    }};
    ($level:ident, $kind:expr, maybe_peer = $peer:expr, $($rest:tt)+) => {{
        let peer = $peer;
        $crate::telemetry::audit::audit!(
            $level,
            $kind,
            uid = peer.map(|peer| peer.uid),
            gid = peer.map(|peer| peer.gid),
            pid = peer.map(|peer| peer.pid),
            $($rest)+
        );
    }};
    ($level:ident, $kind:expr, $($rest:tt)+) => {
        tracing::$level!(target: $crate::telemetry::audit::TARGET, event = $kind.word(), $($rest)+)
    };
}
pub(crate) use audit;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A launch got variables or names.
    Launch,
    /// A launch was refused.
    Refusal,
    /// A launcher left, or was too slow.
    Abandoned,
    /// A unit got a credential.
    Credential,
    /// A unit's credential was refused.
    CredentialRefusal,
    /// The daemon redeemed its join token.
    Join,
    /// The daemon has a new certificate.
    Renewal,
    /// New secrets are in force.
    Bundle,
    /// The secrets were wiped.
    Wipe,
    /// Rules were reloaded, or kept because of mistakes.
    Reload,
    /// An operator made the daemon wipe everything.
    Quiesce,
    /// An operator made the daemon join again.
    Resume,
    /// This machine is a copy: everything was wiped.
    Clone,
    /// Another user was refused at the admin socket.
    AdminRefusal,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 14] = [
        Self::Launch,
        Self::Refusal,
        Self::Abandoned,
        Self::Credential,
        Self::CredentialRefusal,
        Self::Join,
        Self::Renewal,
        Self::Bundle,
        Self::Wipe,
        Self::Reload,
        Self::Quiesce,
        Self::Resume,
        Self::Clone,
        Self::AdminRefusal,
    ];

    /// The field `event`.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Refusal => "refusal",
            Self::Abandoned => "abandoned",
            Self::Credential => "credential",
            Self::CredentialRefusal => "credential_refusal",
            Self::Join => "join",
            Self::Renewal => "renewal",
            Self::Bundle => "bundle",
            Self::Wipe => "wipe",
            Self::Reload => "reload",
            Self::Quiesce => "quiesce",
            Self::Resume => "resume",
            Self::Clone => "clone",
            Self::AdminRefusal => "admin_refusal",
        }
    }

    /// The journal's field `MESSAGE_ID` (sd-id128(3)).
    #[must_use]
    pub(crate) const fn message_id(self) -> &'static str {
        match self {
            Self::Launch => "ac2c2ab0fc984345aa55139196409c8a",
            Self::Refusal => "a702d849ffa34f41a81bc3b472ab4a96",
            Self::Abandoned => "606ae24a04bd48a3a77221873cf03c89",
            Self::Credential => "15c5854044544971af4d2751e5f15e03",
            Self::CredentialRefusal => "84340e6d44f24cd6aa7f6c6bff07bb05",
            Self::Join => "abfe094f4be74630a04fdf2e061bc814",
            Self::Renewal => "7716425375c6488fadd9d0d75fc1c572",
            Self::Bundle => "16c17bb8914e4945a7860feafb35d959",
            Self::Wipe => "06966babb20740e3adad205b6f617bd7",
            Self::Reload => "5905bb9b06474124ab31b635c2e13a9c",
            Self::Quiesce => "bfd7e0d87f844984a14ea3c5cf5b6438",
            Self::Resume => "e9aa028131be44bba390e0896740e2c6",
            Self::Clone => "d9978094d09b45a6a8ea3b373b6a99c9",
            Self::AdminRefusal => "4b16632b96fd47b0a6e794de8aee6679",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_documented_with_its_id() {
        let document = include_str!("../../../../docs/audit.md");
        for kind in Kind::ALL {
            let (word, id) = (format!("| `{}` |", kind.word()), kind.message_id());
            assert!(document.lines().any(|row| row.starts_with(&word) && row.contains(id)), "{word} {id}");
        }
    }
}
