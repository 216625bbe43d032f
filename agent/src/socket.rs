//! The daemon's Unix sockets: bound if no process listens there, removed by the process that made them.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;
use tracing::{debug, warn};

/// Mode of a directory that is made for a socket.
const DIRECTORY_MODE: u32 = 0o755;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All users. Launches are authorized by what the kernel reports about the peer.
    Everybody,
    /// The daemon's own user, and root.
    Owner,
}

impl Audience {
    fn mode(self) -> u32 {
        match self {
            Self::Everybody => 0o666,
            Self::Owner => 0o600,
        }
    }
}

#[derive(Debug, Error)]
pub enum SocketError {
    #[error("{} is served by another process: stop it, or choose another socket", .0.display())]
    Live(PathBuf),
    #[error("{} exists and is not a socket: move it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    #[error("the directory {} cannot be made: create it for the daemon's user", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the descriptor that the service manager passed for {} is unusable: it must be a ListenStream= socket", path.display())]
    Inherited {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be bound: check that its directory is the daemon's and the path has at most 107 bytes", path.display())]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A socket file of ours: device and inode tell it from a successor's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// `None` for a socket of the service manager, which is not ours to remove.
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.inode.is_some()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some()
            && inode(&self.path).ok() == self.inode
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "the socket's file cannot be removed");
        }
    }
}

/// Binds `path` and listens. A file that a dead daemon left is replaced. Call on a tokio runtime.
///
/// # Errors
/// [`SocketError`].
pub(crate) fn bind(path: &Path, audience: Audience) -> Result<(UnixListener, SocketFile), SocketError> {
    make_parent(path)?;
    clear(path)?;
    listen(path, audience).map_err(|source| SocketError::Bind { path: path.to_owned(), source })
}

/// Takes over a listening socket that the service manager made at `path` and owns.
///
/// # Errors
/// [`SocketError::Inherited`].
pub(crate) fn inherit(descriptor: OwnedFd, path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let listener = StdListener::from(descriptor);
    let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    let file = SocketFile { path: path.to_owned(), inode: None };
    let listener = listener.map_err(|source| SocketError::Inherited { path: path.to_owned(), source })?;
    Ok((listener, file))
}

/// Only the last directory: a longer missing path is more likely a mistake.
fn make_parent(path: &Path) -> Result<(), SocketError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if parent.exists() {
        return Ok(());
    }
    let failed = |source| SocketError::Directory { path: parent.to_owned(), source };
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(parent).map_err(failed)?;
    // The umask of this process hides new directories, but all users must pass this one to reach launch.sock.
    fs::set_permissions(parent, Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)
}

fn clear(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    // Only a refused connection proves that no process listens; anything else is left alone.
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_stale(path),
        _ => Err(SocketError::Live(path.to_owned())),
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    debug!(path = %path.display(), "replacing a dead daemon's socket");
    fs::remove_file(path).map_err(|source| SocketError::Bind { path: path.to_owned(), source })
}

fn listen(path: &Path, audience: Audience) -> io::Result<(UnixListener, SocketFile)> {
    let listener = StdListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), inode: Some(inode(path)?) };
    fs::set_permissions(path, Permissions::from_mode(audience.mode()))?;
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, file))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn modes_are_as_documented_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let (launch, admin) = (dir.path().join("run/launch.sock"), dir.path().join("run/admin.sock"));
        let _launch = bind(&launch, Audience::Everybody).unwrap();
        let _admin = bind(&admin, Audience::Owner).unwrap();
        assert_eq!((mode(&launch), mode(&admin)), (0o666, 0o600));
        assert_eq!(mode(launch.parent().unwrap()), 0o755);
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(StdListener::bind(&path).unwrap());
        let first = bind(&path, Audience::Owner).unwrap();
        assert!(matches!(bind(&path, Audience::Owner), Err(SocketError::Live(_))));
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_of_another_kind_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, Audience::Owner), Err(SocketError::NotASocket(_))));
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(matches!(bind(&dir.path().join("link"), Audience::Owner), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_successors_socket_survives_our_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = bind(&path, Audience::Owner).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = StdListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn two_missing_directories_are_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("a/b/s"), Audience::Owner).unwrap_err();
        assert!(matches!(error, SocketError::Directory { .. }));
    }
}
