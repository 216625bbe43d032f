//! Refusals, each with its remedy and never with a value.

use thiserror::Error;

use super::address::InvalidAddress;
use crate::access::peer::UnitName;
use crate::memory::Unavailable;

#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("the kernel does not name the peer")]
    Peer(#[source] std::io::Error),
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    #[error(
        "uid {uid} asks in the name of {unit}, which only systemd (uid 0) may: use devbox-exec, with a [[rule]] for that user"
    )]
    NotSystemd { uid: u32, unit: UnitName },
    #[error("process {pid} asks in the name of {unit} and is not in its cgroup: start the unit by systemctl")]
    OtherUnit { pid: i32, unit: UnitName },
    #[error(
        "this devbox has no variable for the credential {credential:?}: bind a secret to {name}, or correct LoadCredential= in {unit}"
    )]
    Missing { unit: UnitName, credential: String, name: String },
    #[error(
        "no rule grants {name} to {unit}: add a [[credential]] with unit = \"{unit}\" and env = [\"{name}\"] to the daemon's agent.toml"
    )]
    Denied { unit: UnitName, name: String },
    #[error("{}", .0.reason)]
    Unavailable(Unavailable),
}

/// The labels of all refusals except those of a loss of the secrets.
pub(crate) const REFUSALS: [&str; 6] = ["peer", "address", "not_systemd", "other_unit", "missing", "denied"];

impl Refusal {
    /// A stable word for the audit and for metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::Address(_) => "address",
            Self::NotSystemd { .. } => "not_systemd",
            Self::OtherUnit { .. } => "other_unit",
            Self::Missing { .. } => "missing",
            Self::Denied { .. } => "denied",
            Self::Unavailable(unavailable) => unavailable.loss.word(),
        }
    }

    pub(super) fn unit(&self) -> Option<&UnitName> {
        match self {
            Self::Peer(_) | Self::Address(_) | Self::Unavailable(_) => None,
            Self::NotSystemd { unit, .. }
            | Self::OtherUnit { unit, .. }
            | Self::Missing { unit, .. }
            | Self::Denied { unit, .. } => Some(unit),
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Missing { name, .. } | Self::Denied { name, .. } => Some(name),
            _ => None,
        }
    }
}
