//! The daemon's status: one type, [`Status`], rendered as JSON for programs (serde), as a table for people ([`table`]) and as
//! gauges for metrics ([`gauges`]).
//!
//! The JSON is a stable interface: fields are added, never renamed. Each part of the daemon owns the type that describes it;
//! [`Sources`] puts them together.

mod gauges;
mod sources;
pub mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::harden::Hardening;
use crate::machine::CloneDetection;
use crate::memory::Loss;
use crate::restart::Stored;
use crate::sync::{Failure, Timings};

pub(crate) use sources::Sources;

/// The daemon's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has not received any secrets yet.
    #[default]
    Starting,
    /// It serves secrets.
    Ready,
    /// It wiped its secrets because the control plane was unavailable for longer than `max_stale`.
    Stale,
    /// It wiped everything for a snapshot and waits for `resume`.
    Quiesced,
    /// It wiped everything because this machine is a copy, or because a copy of it continued in its place.
    Cloned,
    /// It wiped its secrets for another reason.
    Lost,
}

impl State {
    pub(crate) const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Stale, Self::Quiesced, Self::Cloned, Self::Lost];

    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Quiesced => "quiesced",
            Self::Cloned => "cloned",
            Self::Lost => "lost",
        }
    }
}

impl From<Loss> for State {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Starting => Self::Starting,
            Loss::Stale => Self::Stale,
            Loss::Quiesced => Self::Quiesced,
            Loss::Cloned => Self::Cloned,
            Loss::Revoked | Loss::Stopping => Self::Lost,
        }
    }
}

/// Locked memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `memfd_secret` or `mlock`.
    pub backing: String,
    /// Why it is not `memfd_secret`.
    pub fallback_reason: Option<String>,
    /// Bytes of secret memory that are locked right now.
    pub bytes_locked: usize,
    /// The most that one bundle may take, in bytes.
    pub limit: usize,
}

/// Launches since the daemon started, and launches right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Launches {
    /// Launches that got variables or names.
    pub served: u64,
    /// Launches that got an error.
    pub refused: u64,
    /// Launches whose launcher went away or was too slow. Metrics count these by themselves.
    #[serde(skip)]
    pub abandoned: u64,
    /// Connections of launchers right now. For metrics.
    #[serde(skip)]
    pub connections: usize,
    /// Threads that examine a launcher's process right now, stuck ones included. For metrics.
    #[serde(skip)]
    pub examinations: usize,
}

/// The process itself. For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// When the daemon started, in milliseconds since the epoch.
    pub started_ms: i64,
    /// Audit events that neither the journal nor standard error took.
    pub audit_dropped: u64,
    /// Other lines of the log that standard error did not take.
    pub log_dropped: u64,
}

/// One variable, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name in the environment.
    pub env: String,
    /// The secret's name in its account.
    pub secret: String,
    /// The secret's version.
    pub version: u64,
}

/// All that an operator may know: no value of a secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// This devbox's id; `None` before it has joined.
    pub devbox_id: Option<String>,
    /// The control plane's URL.
    pub server: String,
    /// The daemon's state.
    pub state: State,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The revision of the current secrets.
    pub revision: Option<u64>,
    /// Time since the control plane last confirmed the secrets.
    #[serde(rename = "last_sync_age_s", with = "whole_seconds")]
    pub last_sync_age: Option<Duration>,
    /// The failure that keeps the daemon from synchronising.
    pub last_error: Option<Failure>,
    /// Time until the secrets are wiped unless the control plane confirms them.
    #[serde(rename = "lease_left_s", with = "whole_seconds")]
    pub lease_left: Option<Duration>,
    /// Expiry of the devbox's certificate, in milliseconds since the epoch.
    pub certificate_expires_ms: Option<i64>,
    /// Locked memory.
    pub memory: Memory,
    /// The protections of the process.
    pub hardening: Hardening,
    /// The signs by which a copy of this machine would be noticed.
    pub clone_detection: CloneDetection,
    /// The state that the service manager stores, with which a restart needs no control plane.
    pub restart: Stored,
    /// Launches.
    pub launches: Launches,
    /// How long the first steps took.
    pub timings: Timings,
    /// The current secrets' variables, in ascending order of `env`.
    pub secrets: Vec<Variable>,
    /// The number of variables, even if `secrets` does not list them. For metrics.
    #[serde(skip)]
    pub names: u64,
    /// Time since this process opened the revision. For metrics.
    #[serde(skip)]
    pub revision_age: Option<Duration>,
    /// The process itself. For metrics.
    #[serde(skip)]
    pub process: Process,
}

/// Serializes a time as whole seconds.
mod whole_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` asks for this signature")]
    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_secs))
    }
}
