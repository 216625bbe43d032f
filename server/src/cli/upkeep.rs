//! The commands on the whole state (`check`, `backup`, `restore`, `keys`): their errors, and files
//! that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::app::StartError;
use crate::config::StateConfig;
use crate::crypto::MasterKeyError;
use crate::registry::Refusal;
use crate::store::sqlite::StateDirectory;
use crate::store::{StateError, StoreError};

/// Why a command on the whole state failed.
#[derive(Debug, Error)]
pub enum UpkeepError {
    /// The directory already has a state.
    #[error("there is a state in {} already: restore into an empty directory, or move the old one away", .0.display())]
    StateExists(PathBuf),
    /// A backup's file is there.
    #[error("{} exists, and a backup never overwrites anything: choose another name", .0.display())]
    FileExists(PathBuf),
    /// A file cannot be read or written.
    #[error("{} cannot be read or written: check the path, permissions and free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
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
    /// The database is damaged, or of another version.
    #[error("{} is not a valid state", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// The damage.
        #[source]
        source: StoreError,
    },
    /// Some records do not open.
    #[error("{} is damaged: {}; restore a backup", path.display(), problems.join("; "))]
    Records {
        /// The database's file.
        path: PathBuf,
        /// Each problem.
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
    pub(super) fn database(path: PathBuf) -> impl Fn(StoreError) -> Self {
        move |source| Self::Database { path: path.clone(), source }
    }
}

/// The directory of a state that is there.
pub(super) fn existing(config: &StateConfig) -> Result<StateDirectory, UpkeepError> {
    StateDirectory::existing(&config.directory).map_err(UpkeepError::State)
}

/// A file that is written beside its final path. Unless it is kept, dropping it deletes it.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// An empty file (mode 0600) that will be `place`.
    pub(super) fn new(place: &Path) -> Result<Self, UpkeepError> {
        let mut name = place.as_os_str().to_owned();
        name.push(".partial");
        let draft = Self { path: name.into(), place: place.to_owned() };
        // A killed run may have left one behind. The name is fixed, unlike that of a temporary file
        // of `tempfile`, so that the next run finds and removes it.
        let _ = fs::remove_file(&draft.path);
        create(&draft.path).map_err(|source| file_error(&draft.path, source))?;
        Ok(draft)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes the whole file to disk, then links it to its final path, which must not exist.
    pub(super) fn keep(self) -> Result<(), UpkeepError> {
        // The content is synced before the file is named: a power failure leaves no half-written
        // file under the final name.
        let placed = File::open(&self.path).and_then(|file| file.sync_all()).and_then(|()| self.place());
        match placed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(UpkeepError::FileExists(self.place.clone()))
            }
            placed => placed.map_err(|source| file_error(&self.place, source)),
        }
    }

    /// A hard link never replaces a file; a rename would.
    fn place(&self) -> io::Result<()> {
        // A link fails if the name exists, while a rename would replace the file.
        fs::hard_link(&self.path, &self.place)?;
        fs::remove_file(&self.path)?;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        // The new name is on disk only after its directory is synced.
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Either it was kept, or deleting it is best effort.
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn file_error(path: &Path, source: io::Error) -> UpkeepError {
    UpkeepError::File { path: path.to_owned(), source }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
