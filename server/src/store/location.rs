//! The place of a state before it is opened. Each backend has its own; [`existing`] and
//! [`new_or_existing`] choose it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use super::sqlite::StateDirectory;
use super::{Store, StoreError};

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// It cannot be created, read or written.
    #[error("the state directory {path} cannot be used: it must be a directory that this user may write")]
    Access {
        /// The directory or the file in it.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no state.
    #[error(
        "there is no state in {path}: check the path, and that its volume is mounted; `init` sets a new state up"
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Others than the owner may enter it.
    #[error("the state directory {path} is open to others (mode {mode:04o}): run chmod 700 {path}")]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another server serves it.
    #[error(
        "the state directory {path} is being served by another process: stop that server first, or give this one a \
         directory of its own"
    )]
    Served {
        /// The directory.
        path: PathBuf,
    },
}

/// Held while a state is opened, so that two programs do not both set it up.
#[derive(Debug)]
pub(crate) struct OpenLock {
    _held: Box<dyn fmt::Debug + Send + Sync>,
}

impl OpenLock {
    /// A lock that is free again when `held` is dropped.
    pub(crate) fn held_by(held: impl fmt::Debug + Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

/// The right to serve a state. It is free again when its process is gone, however that ended.
#[derive(Debug)]
pub(crate) struct ServeClaim {
    _held: Box<dyn fmt::Debug + Send + Sync>,
}

impl ServeClaim {
    /// A claim that is free again when `held` is dropped.
    pub(crate) fn held_by(held: impl fmt::Debug + Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

/// How much of a database was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// As much as the bound allowed.
    Part,
}

/// The place of a state in one backend.
#[async_trait]
pub(crate) trait Location: fmt::Debug + Send + Sync {
    /// The place, for messages.
    fn name(&self) -> String;

    fn database_name(&self) -> String;

    /// Whether a state was set up here, or at least started to be.
    fn has_state(&self) -> bool;

    /// Waits for the lock under which a state is opened and set up.
    fn lock(&self) -> Result<OpenLock, StateError>;

    /// Takes the right to serve the state. Operators' commands need none.
    ///
    /// # Errors
    /// [`StateError::Served`] if another process has it; [`StateError::Access`].
    fn claim(&self) -> Result<ServeClaim, StateError>;

    /// Makes room for a new state that only its owner can read. An existing state stays as it is.
    fn prepare(&self) -> Result<(), StateError>;

    /// Checks the database for damage in bounded time, whatever its size.
    ///
    /// # Errors
    /// [`StoreError::Inconsistent`] with the damage; [`StoreError`] if the database cannot even be
    /// read.
    async fn check_for_start(&self) -> Result<Extent, StoreError>;

    /// Opens the state beside a server, which may be of another version: the schema stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Older`], [`StoreError::Newer`], [`StoreError::Empty`],
    /// [`StoreError::Database`].
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// Opens the state and brings its schema up to date. The claim keeps every server away that
    /// does not know the new schema. Hold [`Self::lock`] meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Migrate`], [`StoreError::Database`].
    async fn set_up(&self, claim: &ServeClaim) -> Result<Arc<dyn Store>, StoreError>;
}

/// The place of a state that was set up before. It creates no file: an unmounted volume or a
/// mistyped path stays as it is.
///
/// # Errors
/// [`StateError::Missing`]; others as [`new_or_existing`].
pub(crate) fn existing(directory: &Path) -> Result<Box<dyn Location>, StateError> {
    Ok(Box::new(StateDirectory::existing(directory)?))
}

/// The place of a state, which is made if there is none.
///
/// # Errors
/// [`StateError`] if the place cannot be used, or is open to others.
pub(crate) fn new_or_existing(directory: &Path) -> Result<Box<dyn Location>, StateError> {
    Ok(Box::new(StateDirectory::open(directory)?))
}
