//! Errors of polls.

use devbox_secrets_proto::bundle::InvalidBundle;
use devbox_secrets_proto::devbox::{CONTINUED_ELSEWHERE, IN_USE_ELSEWHERE};
use devbox_secrets_proto::seal::SealError;
use hyper::StatusCode;
use thiserror::Error;

use super::expiry::EXPIRED;
use crate::control_plane::{Refusal, TransportError};
use crate::memory::GenerationError;

/// Why a poll failed.
#[derive(Debug, Error)]
pub(crate) enum SyncError {
    /// The control plane was not reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The control plane refused.
    #[error(transparent)]
    Refused(Refusal),
    /// The certificate has expired.
    #[error("{EXPIRED}")]
    Expired,
    /// There are no random numbers, without which a clone cannot be detected.
    #[error("this machine has no random numbers: see the kernel's log")]
    Random,
    /// The answer is "unchanged", to a daemon without secrets.
    #[error(
        "the server answered \"unchanged\" to a daemon without secrets: are server and daemon of the same version?"
    )]
    UnchangedFromNothing,
    /// The answer is not a bundle.
    #[error("the server's answer is not a bundle: are server and daemon of the same version?")]
    Bundle(#[from] InvalidBundle),
    /// The bundle is older than an earlier one.
    #[error(
        "the server offers revision {offered} after {held}: if it was restored from a backup, quiesce and resume this \
         daemon to accept that"
    )]
    Rollback {
        /// The highest revision so far.
        held: u64,
        /// The bundle's revision.
        offered: u64,
    },
    /// The bundle cannot be decrypted.
    #[error("the bundle was not sealed for this request")]
    Seal(#[from] SealError),
    /// The bundle cannot be put into locked memory.
    #[error("revision {revision} cannot be put into locked memory")]
    Generation {
        /// The bundle's revision.
        revision: u64,
        /// The reason.
        #[source]
        source: GenerationError,
    },
}

impl SyncError {
    /// All kinds.
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

    /// Whether the bundle is valid but does not fit.
    pub(super) fn lacks_room(&self) -> bool {
        use GenerationError as Why;
        matches!(
            self,
            Self::Transport(TransportError::TooLarge { .. })
                | Self::Generation { source: Why::Memory(_) | Why::TooLarge { .. }, .. }
        )
    }
}
