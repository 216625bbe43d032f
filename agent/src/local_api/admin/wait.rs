//! Waits until a resumed daemon has its secrets, or reports why it has none.

use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::sleep;

use super::client::{self, AskError};
use crate::status::{State, Status};

const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Why a daemon has not resumed.
#[derive(Debug, Error)]
pub enum NotResumed {
    /// The daemon is unreachable.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Its status is of another version.
    #[error("the daemon is of another version than this program")]
    Version(#[from] serde_json::Error),
    /// It has stopped trying.
    #[error("{0}")]
    Ended(String),
    /// It is still trying.
    #[error("no secrets after {} s, and the daemon keeps trying: {reason}", waited.as_secs())]
    Waiting {
        /// The time spent waiting.
        waited: Duration,
        /// The last reason.
        reason: String,
    },
}

/// Waits until the daemon at `path` serves, at most for `wait`.
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
            State::Starting if started.elapsed() < wait => sleep(CHECK_INTERVAL).await,
            State::Starting => return Err(NotResumed::Waiting { waited: wait, reason }),
            _ => return Err(NotResumed::Ended(reason)),
        }
    }
}
