//! Waits until a daemon that was told to resume has its secrets, or says why it has none.

use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::sleep;

use super::client::{self, AskError};
use crate::status::{State, Status};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why a daemon has not resumed.
#[derive(Debug, Error)]
pub enum NotResumed {
    /// It cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What it answers is not understood.
    #[error("the daemon is of another version than this program")]
    Version(#[from] serde_json::Error),
    /// It has ended trying.
    #[error("{0}")]
    Ended(String),
    /// It goes on trying.
    #[error("no secrets after {} s, and the daemon goes on trying: {reason}", waited.as_secs())]
    Waiting {
        /// How long was waited.
        waited: Duration,
        /// What keeps it.
        reason: String,
    },
}

/// Waits, `wait` at most, until the daemon at `path` serves.
///
/// # Errors
/// [`NotResumed`].
pub async fn until_resumed(path: &Path, wait: Duration) -> Result<(), NotResumed> {
    let started = Instant::now();
    loop {
        let status: Status = serde_json::from_slice(&client::status(path).await?)?;
        let reason = status.reason.unwrap_or_default();
        match status.state {
            State::Ready => return Ok(()),
            State::Starting if started.elapsed() < wait => sleep(LOOK_AGAIN).await,
            State::Starting => return Err(NotResumed::Waiting { waited: wait, reason }),
            _ => return Err(NotResumed::Ended(reason)),
        }
    }
}
