//! The state directory: its paths, its permissions, and its locks.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{SqliteStore, examine_for_start};
use crate::store::{Extent, Location, OpenLock, ServeClaim, StateError, Store, StoreError};

/// A directory that only its owner may enter.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Makes the directory (mode 0700) if it is absent. An empty one is closed to others; one that
    /// holds something and is open to others is refused.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        Self::make(path).map_err(|source| StateError::Access { path: path.to_owned(), source })?;
        Self(path.to_owned()).closed_to_others()
    }

    /// The directory of a state that was set up before. It creates no file: an unmounted volume or
    /// a mistyped path stays as it is.
    ///
    /// # Errors
    /// [`StateError::Missing`]; others as [`StateDirectory::open`].
    pub(crate) fn existing(path: &Path) -> Result<Self, StateError> {
        let state = Self(path.to_owned());
        match state.database().try_exists() {
            Ok(true) => state.closed_to_others(),
            Ok(false) => Err(StateError::Missing { path: path.to_owned() }),
            Err(source) => Err(state.access(path, source)),
        }
    }

    fn closed_to_others(self) -> Result<Self, StateError> {
        match self.mode()? & 0o777 {
            mode if mode & 0o077 != 0 => Err(StateError::Mode { path: self.0, mode }),
            _ => Ok(self),
        }
    }

    fn make(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if fs::read_dir(path)?.next().is_none() {
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    fn mode(&self) -> Result<u32, StateError> {
        let metadata = fs::metadata(&self.0);
        metadata.map(|found| found.mode()).map_err(|source| self.access(&self.0, source))
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("state.sqlite3")
    }

    /// Whether a state was set up here before, or at least begun.
    pub(crate) fn has_database(&self) -> bool {
        self.database().exists()
    }

    /// Makes the database's file (mode 0600) if it is absent. SQLite gives its companion files the
    /// same mode.
    pub(crate) fn touch_database(&self) -> Result<(), StateError> {
        let path = self.database();
        self.private_file(&path).map(drop).map_err(|source| self.access(&path, source))
    }

    /// Gives a file of the state to the directory's owner: root may have made it for a server that
    /// is not root.
    pub(crate) fn adopt(&self, path: &Path) -> Result<(), StateError> {
        same_owner(path, &self.0).map_err(|source| self.access(path, source))
    }

    fn private_file(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        same_owner(path, &self.0)?;
        Ok(file)
    }

    fn access(&self, path: &Path, source: io::Error) -> StateError {
        StateError::Access { path: path.to_owned(), source }
    }
}

#[async_trait]
impl Location for StateDirectory {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn database_name(&self) -> String {
        self.database().display().to_string()
    }

    fn has_state(&self) -> bool {
        self.has_database()
    }

    fn lock(&self) -> Result<OpenLock, StateError> {
        let path = self.0.join("open.lock");
        let file = self.private_file(&path).and_then(|file| file.lock().map(|()| file));
        file.map(OpenLock::held_by).map_err(|source| self.access(&path, source))
    }

    fn claim(&self) -> Result<ServeClaim, StateError> {
        let path = self.0.join("serve.lock");
        let file = self.private_file(&path).map_err(|source| self.access(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(ServeClaim::held_by(file)),
            Err(TryLockError::WouldBlock) => Err(StateError::Served { path: self.0.clone() }),
            Err(TryLockError::Error(source)) => Err(self.access(&path, source)),
        }
    }

    fn prepare(&self) -> Result<(), StateError> {
        self.touch_database()
    }

    async fn check_for_start(&self) -> Result<Extent, StoreError> {
        examine_for_start(&self.database()).await
    }

    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::open(self).await?))
    }

    async fn set_up(&self, claim: &ServeClaim) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::set_up(self, claim).await?))
    }
}

/// Gives `path` to the owner of `like`, if that is a different user.
pub(crate) fn same_owner(path: &Path, like: &Path) -> io::Result<()> {
    let own = fs::metadata(path)?;
    let wanted = fs::metadata(like)?;
    if own.uid() == wanted.uid() {
        return Ok(());
    }
    chown(path, Some(wanted.uid()), Some(wanted.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_new_or_empty_directory_is_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("a/b");
        let empty = parent.path().join("empty");
        fs::create_dir(&empty).unwrap();
        for path in [&new, &empty] {
            let state = StateDirectory::open(path).unwrap();
            state.touch_database().unwrap();
            assert_eq!((mode(path), mode(&state.database())), (0o700, 0o600));
        }
    }

    #[test]
    fn a_used_directory_that_is_open_to_others_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("somebody's file"), b"").unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(StateDirectory::open(parent.path()), Err(StateError::Mode { mode: 0o755, .. })));
        assert_eq!(mode(parent.path()), 0o755);
    }

    #[test]
    fn a_state_is_served_once_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&parent.path().join("state")).unwrap();
        let claim = state.claim().unwrap();
        assert!(matches!(state.claim(), Err(StateError::Served { .. })));
        drop(claim);
        assert!(state.claim().is_ok());
    }

    #[test]
    fn a_state_that_is_not_there_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let unmounted = parent.path().join("unmounted");
        for _ in 0..2 {
            assert!(matches!(StateDirectory::existing(&unmounted), Err(StateError::Missing { .. })));
        }
        assert!(!unmounted.exists());
    }

    #[test]
    fn a_file_is_no_state_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(StateDirectory::open(file.path()), Err(StateError::Access { .. })));
    }
}
