//! Errors of polls.

use devbox_secrets_proto::bundle::InvalidBundle;
use devbox_secrets_proto::devbox::{CONTINUED_ELSEWHERE, IN_USE_ELSEWHERE};
use devbox_secrets_proto::seal::SealError;
use hyper::StatusCode;
use thiserror::Error;

use super::expiry::EXPIRED;
use crate::control_plane::{Refusal, TransportError};
use crate::memory::GenerationError;

#[derive(Debug, Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Refused(Refusal),
    #[error("{EXPIRED}")]
    Expired,
    #[error("this machine has no random numbers: see the kernel's log")]
    Random,
    #[error(
        "the server answered \"unchanged\" to a daemon without secrets: are server and daemon of the same version?"
    )]
    UnchangedFromNothing,
    #[error("the server's answer is not a bundle: are server and daemon of the same version?")]
    Bundle(#[from] InvalidBundle),
    #[error(
        "the server offers revision {offered} after {held}: if it was restored from a backup, quiesce and resume this \
         daemon to accept that"
    )]
    Rollback { held: u64, offered: u64 },
    #[error("the bundle was not sealed for this request")]
    Seal(#[from] SealError),
    #[error("revision {revision} cannot be put into locked memory")]
    Generation {
        revision: u64,
        #[source]
        source: GenerationError,
    },
}

impl SyncError {
    pub(crate) const KINDS: [&str; 15] = [
        "resolve",
        "connect",
        "timeout",
        "tls",
        "other_server",
        "broken",
        "too_large",
        "refused",
        "expired",
        "random",
        "unchanged",
        "bundle",
        "rollback",
        "seal",
        "memory",
    ];

    /// A stable word for metrics.
    #[must_use]
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Transport(error) => error.kind(),
            Self::Refused(_) => "refused",
            Self::Expired => "expired",
            Self::Random => "random",
            Self::UnchangedFromNothing => "unchanged",
            Self::Bundle(_) => "bundle",
            Self::Rollback { .. } => "rollback",
            Self::Seal(_) => "seal",
            Self::Generation { .. } => "memory",
        }
    }

    /// Whether this devbox may not have secrets any more.
    pub(super) fn revokes(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                    && refusal.code != IN_USE_ELSEWHERE
            }
            Self::Expired => true,
            _ => false,
        }
    }

    /// Whether another machine continued with this one's identity.
    pub(super) fn reports_a_clone(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == CONTINUED_ELSEWHERE)
    }

    pub(super) fn lacks_room(&self) -> bool {
        use GenerationError as Why;
        matches!(
            self,
            Self::Transport(TransportError::TooLarge { .. })
                | Self::Generation { source: Why::Memory(_) | Why::TooLarge { .. }, .. }
        )
    }
}
