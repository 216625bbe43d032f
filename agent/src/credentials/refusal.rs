//! Refusals, each with its remedy. None with a value.

use thiserror::Error;

use super::address::InvalidAddress;
use crate::peer::UnitName;

/// Why a unit does not get a credential.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The kernel does not say who asks.
    #[error("the kernel does not name the peer")]
    Peer(#[source] std::io::Error),
    /// The address is none of systemd's.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Somebody imitates systemd.
    #[error(
        "uid {uid} asks in the name of {unit}, which only systemd (uid 0) may: use devbox-exec, with a [[rule]] for that user"
    )]
    NotSystemd {
        /// Who asks.
        uid: u32,
        /// In whose name.
        unit: UnitName,
    },
    /// Root asks, from outside the unit.
    #[error("process {pid} asks in the name of {unit} and is not in its cgroup: start the unit by systemctl")]
    OtherUnit {
        /// Who asks.
        pid: i32,
        /// In whose name.
        unit: UnitName,
    },
    /// There is no such variable.
    #[error(
        "this devbox has no variable for the credential {credential:?}: bind a secret to {name}, or correct LoadCredential= in {unit}"
    )]
    Missing {
        /// Who asks.
        unit: UnitName,
        /// For what.
        credential: String,
        /// The name that a variable would have.
        name: String,
    },
    /// No rule.
    #[error(
        "no rule grants {name} to {unit}: add a [[credential]] with unit = \"{unit}\" and env = [\"{name}\"] to the daemon's agent.toml"
    )]
    Denied {
        /// Who asks.
        unit: UnitName,
        /// For which variable.
        name: String,
    },
    /// There are no secrets.
    #[error("{0}")]
    Unavailable(std::sync::Arc<str>),
}
