//! The result of one step of the hardening.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Whether the protection is in place.
    pub achieved: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The means, if there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Step {
    pub(super) fn achieved() -> Self {
        Self { achieved: true, reason: None, detail: None }
    }

    pub(super) fn achieved_by(detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::achieved() }
    }

    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self { achieved: false, reason: Some(reason.into()), detail: None }
    }

    pub(super) fn of(result: nix::Result<()>, what: &str) -> Self {
        match result {
            Ok(()) => Self::achieved(),
            Err(errno) => Self::missing(format!("{what}: {errno}")),
        }
    }
}
