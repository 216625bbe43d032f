//! What operators do with a whole state: copy it, put a copy in its place, look it over, change its master key.
//!
//! [`fn@backup`], [`fn@check`] and [`fn@rotate`] work beside a running server; [`fn@restore`] needs a place where none is.

mod backup;
mod check;
mod files;
mod restore;
mod rotate;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use backup::backup;
pub use check::{StateSummary, check};
pub use restore::restore;
pub use rotate::{rotate, rotate_and_rekey};

use crate::app::StartError;
use crate::config::StateConfig;
use crate::crypto::MasterKeyError;
use crate::registry::Refusal;
use crate::store::{StateDirectory, StateError, StoreError};

/// Why it was not done.
#[derive(Debug, Error)]
pub enum UpkeepError {
    /// Something is there that would be lost.
    #[error("there is a state in {} already: restore into an empty directory, or move the old one away", .0.display())]
    StateExists(PathBuf),
    /// A backup's file is there.
    #[error("{} exists, and a backup never overwrites anything: choose another name", .0.display())]
    FileExists(PathBuf),
    /// A file cannot be read or written.
    #[error("{} cannot be read or written: check the path, permissions and free space", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state does not open.
    #[error("the state cannot be used")]
    Start(#[source] StartError),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[source] StateError),
    /// The master key cannot be used.
    #[error("the master key cannot be used")]
    MasterKey(#[source] MasterKeyError),
    /// The new master key cannot be used.
    #[error("the new master key cannot be used")]
    NewMasterKey(#[source] MasterKeyError),
    /// The new key's file is the old one's.
    #[error("{} is the master key in use: name a file for the new key", .0.display())]
    SameKey(PathBuf),
    /// The database is not what it should be.
    #[error("{} is not a sound state", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: StoreError,
    },
    /// Records do not open.
    #[error("{} is damaged: {}; restore a backup", path.display(), problems.join("; "))]
    Records {
        /// The database's file.
        path: PathBuf,
        /// Each of them.
        problems: Vec<String>,
    },
    /// The database is under another master key.
    #[error("{} was written under another master key: restore that key's file first", .0.display())]
    OtherMasterKey(PathBuf),
    /// The registry failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl UpkeepError {
    fn database(path: PathBuf) -> impl Fn(StoreError) -> Self {
        move |source| Self::Database { path: path.clone(), source }
    }
}

/// The directory of a state that is there.
fn existing(config: &StateConfig) -> Result<StateDirectory, UpkeepError> {
    StateDirectory::existing(&config.directory).map_err(UpkeepError::State)
}
