//! The audit's records: who did what to which name, and what came of it. Never a value, never a
//! token.

use std::net::IpAddr;

use crate::clock::TimeMs;
use crate::crypto::id::{AccountId, DevboxId, TokenId};

/// The actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Somebody with an API token.
    Token(TokenId),
    /// A devbox with its certificate or join token.
    Devbox(DevboxId),
    /// An operator on the server's machine, by the name of the user.
    Operator(String),
    /// The server itself.
    Server,
}

impl Actor {
    /// The kind of actor, for the audit's column.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Devbox(_) => "devbox",
            Self::Operator(_) => "operator",
            Self::Server => "server",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Token(id) => id.as_str(),
            Self::Devbox(id) => id.as_str(),
            Self::Operator(user) => user,
            Self::Server => "",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The stored and printed form.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

actions! {
    AccountCreate = "account.create",
    AccountCapability = "account.capability",
    TokenCreate = "token.create",
    TokenRevoke = "token.revoke",
    /// An API token was presented (only refusals are written down).
    TokenUse = "token.use",
    SecretCreate = "secret.create",
    /// A secret's value was replaced.
    SecretUpdate = "secret.update",
    SecretDelete = "secret.delete",
    /// A secret's view was read (only refusals are written down).
    SecretRead = "secret.read",
    DevboxCreate = "devbox.create",
    DevboxShutdown = "devbox.shutdown",
    DevboxJoinToken = "devbox.join_token",
    /// A copy of a devbox was refused; the row is of the machine that keeps the identity.
    DevboxClone = "devbox.clone",
    /// A devbox's view was read (only refusals are written down).
    DevboxRead = "devbox.read",
    DevboxEnroll = "devbox.enroll",
    DevboxRenew = "devbox.renew",
    StateBackup = "state.backup",
    StateRestore = "state.restore",
    /// Rows that ended long ago were deleted: certificates, join tokens, receipts, devboxes.
    StatePrune = "state.prune",
    /// Old rows of the audit may be deleted from now on.
    AuditPrune = "audit.prune",
    ServerStart = "server.start",
    ServerReload = "server.reload",
    ServerStop = "server.stop",
    /// Every key was wrapped under a new master key.
    KeysRotate = "keys.rotate",
    /// An account has a new key, and its values are sealed under it.
    KeysRekey = "keys.rekey",
    /// A new devbox CA issues from now on.
    CaRotate = "ca.rotate",
    /// A devbox CA is trusted no more, before its time.
    CaRetire = "ca.retire",
    DevboxBundle = "devbox.bundle",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    /// It had been done before: a retry got the first answer again.
    Replayed,
}

impl Outcome {
    /// The stored and printed form.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Replayed => "replayed",
        }
    }
}

/// One row to be written, in the transaction of the write that it records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    pub(crate) time_ms: TimeMs,
    pub(crate) account: Option<AccountId>,
    pub(crate) actor: Actor,
    pub(crate) action: Action,
    /// The object's identifier, or its name if it has no identifier.
    pub(crate) object: String,
    /// The object's name, if it has one besides its identifier.
    pub(crate) object_name: Option<String>,
    pub(crate) outcome: Outcome,
    /// A stable word for a refusal, or a few facts.
    pub(crate) reason: Option<String>,
    pub(crate) remote: Option<IpAddr>,
}

/// One row as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct AuditEntry {
    /// Its number; later rows have greater ones.
    pub(crate) sequence: i64,
    pub(crate) time_ms: TimeMs,
    pub(crate) account: Option<String>,
    pub(crate) actor_kind: String,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) object_name: Option<String>,
    pub(crate) outcome: String,
    /// A stable word for a refusal, or a few facts.
    pub(crate) reason: Option<String>,
    pub(crate) remote_address: Option<String>,
    /// SHA-256 over this row and the hash of the one before it, in lowercase hexadecimal; none:
    /// from before there was one.
    pub(crate) hash: Option<String>,
}

impl AuditEntry {
    /// The row `record` under the number `sequence`, not yet chained.
    pub(crate) fn new(sequence: i64, record: &AuditRecord) -> Self {
        Self {
            sequence,
            time_ms: record.time_ms,
            account: record.account.as_ref().map(ToString::to_string),
            actor_kind: record.actor.kind().to_owned(),
            actor: record.actor.name().to_owned(),
            action: record.action.as_str().to_owned(),
            object: record.object.clone(),
            object_name: record.object_name.clone(),
            outcome: record.outcome.as_str().to_owned(),
            reason: record.reason.clone(),
            remote_address: record.remote.map(|address| address.to_string()),
            hash: None,
        }
    }
}

/// Which rows of the audit, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditPage {
    /// Newest first, from the one before this number.
    NewestBefore(i64),
    /// Oldest first, from the one after this number.
    OldestAfter(i64),
}

/// From which row on the audit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditFloor {
    /// The number of the first row that is kept.
    pub(crate) sequence: i64,
    /// The hash of the last row that is not.
    pub(crate) hash: Option<super::AuditHash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_documented() {
        let document = include_str!("../../../docs/audit.md");
        for action in Action::ALL {
            assert!(document.contains(&format!("`{}`", action.as_str())), "{}", action.as_str());
        }
    }
}
