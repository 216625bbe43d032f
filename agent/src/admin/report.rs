//! What `GET /status` answers. A stable interface for programs: fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::harden::Hardening;
use crate::machine::CloneDetection;

/// In which state the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has not had any secrets yet.
    #[default]
    Starting,
    /// It serves secrets.
    Ready,
    /// It wiped its secrets when the control plane had been away for longer than `max_stale`.
    Stale,
    /// It was told to wipe everything, and waits for `resume`.
    Quiesced,
    /// It wiped everything because this machine is a copy, or has one that went on in its place.
    Cloned,
    /// It wiped its secrets for another reason.
    Lost,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Stale, Self::Quiesced, Self::Cloned, Self::Lost];

    /// The word that people read.
    #[must_use]
    pub fn word(self) -> &'static str {
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

/// What keeps the daemon from synchronising.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// What, with its causes, on one line.
    pub message: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: i64,
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
    /// Most that one bundle may take, in bytes.
    pub limit: usize,
}

/// What waits in the service manager's file-descriptor store: a restart needs no control plane for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Whether the devbox's identity does.
    pub identity: bool,
    /// The revision of the secrets that do; none where no secrets do.
    pub secrets_revision: Option<u64>,
}

/// Launches since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launches {
    /// Got what they asked for.
    pub served: u64,
    /// Were refused.
    pub refused: u64,
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

/// How long the first steps took, in milliseconds; none that has not been taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// To join: key, signing request, certificate.
    pub enroll_ms: Option<f64>,
    /// To fetch the first bundle and open it in locked memory.
    pub fetch_ms: Option<f64>,
}

/// Everything that an operator may know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Which devbox this is; none before it has joined.
    pub devbox_id: Option<String>,
    /// The control plane.
    pub server: String,
    /// In which state the daemon is.
    pub state: State,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The revision that is held.
    pub revision: Option<u64>,
    /// Seconds since the control plane last answered that all is well.
    pub last_sync_age_s: Option<u64>,
    /// What fails at present.
    pub last_error: Option<LastError>,
    /// Seconds until the secrets are wiped unless it answers.
    pub lease_left_s: Option<u64>,
    /// End of the devbox's certificate, in milliseconds since the epoch.
    pub certificate_expires_ms: Option<i64>,
    /// Locked memory.
    pub memory: Memory,
    /// What protects the process.
    pub hardening: Hardening,
    /// By what a copy of this machine would be noticed.
    pub clone_detection: CloneDetection,
    /// What waits for a restart.
    pub restart: Restart,
    /// Launches since the start.
    pub launches: Launches,
    /// How long the first steps took.
    pub timings: Timings,
    /// What is held, in ascending order of `env`.
    pub secrets: Vec<Variable>,
}
