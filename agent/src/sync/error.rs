//! Why a poll brought nothing.

use devbox_secrets_proto::bundle::InvalidBundle;
use devbox_secrets_proto::devbox::{CONTINUED_ELSEWHERE, IN_USE_ELSEWHERE};
use devbox_secrets_proto::seal::SealError;
use hyper::StatusCode;
use thiserror::Error;

use super::expiry::EXPIRED;
use crate::control_plane::{Refusal, TransportError};
use crate::memory::GenerationError;

/// Why a poll brought nothing.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The control plane was not reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The certificate is over.
    #[error("{EXPIRED}")]
    Expired,
    /// A request cannot be told from a copy's.
    #[error("this machine has no random numbers: look into the kernel's log")]
    Random,
    /// It says that nothing changed, to a daemon that holds nothing.
    #[error(
        "the server answered that nothing changed since nothing: are server and daemon of the same version?"
    )]
    UnchangedFromNothing,
    /// What came is no bundle.
    #[error("what the server answered is no bundle: are server and daemon of the same version?")]
    Bundle(#[from] InvalidBundle),
    /// What came is older than what was held.
    #[error(
        "the server offers revision {offered} after {held}: if it was restored from a backup, quiesce and resume this \
         daemon to accept that"
    )]
    Rollback {
        /// The highest revision held so far.
        held: u64,
        /// What was offered.
        offered: u64,
    },
    /// The bundle's context does not open.
    #[error("the bundle was not sealed for this request")]
    Seal(#[from] SealError),
    /// The bundle does not become a generation.
    #[error("revision {revision} cannot be held")]
    Generation {
        /// The bundle's revision.
        revision: u64,
        /// Why.
        #[source]
        source: GenerationError,
    },
}

impl SyncError {
    /// Every [`Self::kind`].
    pub const KINDS: [&str; 15] = [
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
    pub const fn kind(&self) -> &'static str {
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

    /// Whether the control plane says that this devbox may have nothing any more.
    pub(super) fn ends_service(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                    && refusal.code != IN_USE_ELSEWHERE
            }
            Self::Expired => true,
            _ => false,
        }
    }

    /// Whether another machine has gone on with this one's identity.
    pub(super) fn tells_of_a_clone(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == CONTINUED_ELSEWHERE)
    }

    /// Whether the bundle is good, and there is no room for it.
    pub(super) fn lacks_room(&self) -> bool {
        use GenerationError as Why;
        matches!(
            self,
            Self::Transport(TransportError::TooLarge { .. })
                | Self::Generation { source: Why::Memory(_) | Why::TooLarge { .. }, .. }
        )
    }
}
