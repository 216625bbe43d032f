//! The executable of a process: its path and its contents.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, lstat};

use super::digest::{Digest, Remembered};
use super::{Learned, Obstacle, Process, Questions};
use crate::sys::Stamp;

/// The kernel's suffix for the path of a deleted file.
const DELETED: &str = " (deleted)";

/// Longest executable that is hashed, in bytes.
pub(super) const MAX_HASHED: i64 = 1 << 30;

/// The executable of a process. A process may run another one after it has connected, and anybody
/// may run a program that everybody can execute: so an executable narrows a rule about a user or
/// unit, and seldom suffices alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Its path by the kernel: absolute, without symbolic links. A path that the questions name is
    /// verified to be the file that the daemon sees there; other paths may be of another mount
    /// namespace.
    pub path: String,
    pub digest: Learned<Digest>,
}

impl Executable {
    /// Looks up the executable of `process`, as far as `questions` ask. The path comes first, and
    /// its file system is called only if a question names it, because any user can run a program
    /// from one that never responds. `before_file` is called before that.
    pub(super) fn of(
        process: &Process,
        questions: &Questions,
        remembered: &Mutex<Remembered>,
        before_file: impl FnOnce(),
    ) -> Result<Self, Obstacle> {
        let file = open(&process.directory()?)?;
        let path = path_of(&file)?;
        let Some(question) = questions.executables.iter().find(|question| question.path == path) else {
            let is_deleted = path.ends_with(DELETED);
            return if is_deleted {
                Err(Obstacle::Deleted)
            } else {
                Ok(Self { path, digest: Err(Obstacle::NotAsked) })
            };
        };
        // From here on the file's file system may block for ever, so another thread must be ready.
        before_file();
        let stat = fstat(&file).map_err(Obstacle::Unreadable)?;
        if stat.st_nlink == 0 {
            return Err(Obstacle::Deleted);
        }
        same_file(&path, &stat)?;
        let digest = if question.digest { digest(&file, &stat, remembered) } else { Err(Obstacle::NotAsked) };
        Ok(Self { path, digest })
    }
}

/// The file itself, through the kernel's link. This calls nothing of its file system.
fn open(directory: &OwnedFd) -> Result<OwnedFd, Obstacle> {
    openat(directory, "exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        // ENOENT: a kernel thread, or a process that is exiting.
        Errno::ESRCH | Errno::ENOENT => Obstacle::Ended,
        Errno::EACCES | Errno::EPERM => Obstacle::Forbidden,
        errno => Obstacle::Hidden(errno),
    })
}

/// The path of this file, even if the process runs another one by now.
fn path_of(file: &OwnedFd) -> Result<String, Obstacle> {
    let path = readlinkat(AT_FDCWD, own_link(file).as_str()).map_err(Obstacle::Hidden)?;
    path.into_string().map_err(|_| Obstacle::NotText)
}

fn own_link(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Any user can make a mount namespace in which any file is called `/usr/bin/devbox-exec`. Only
/// paths that a rule names are looked up, because others may be on a file system that never
/// responds.
fn same_file(path: &str, running: &FileStat) -> Result<(), Obstacle> {
    let here = lstat(path).map_err(|_| Obstacle::Unseen)?;
    let is_same = (here.st_dev, here.st_ino) == (running.st_dev, running.st_ino);
    if is_same { Ok(()) } else { Err(Obstacle::OtherFile) }
}

fn digest(file: &OwnedFd, stat: &FileStat, remembered: &Mutex<Remembered>) -> Learned<Digest> {
    let stamp = Stamp::from(stat);
    if let Some(known) = lock(remembered).find(stamp) {
        return Ok(known);
    }
    // Hashing more takes longer than a launch waits.
    if stat.st_size > MAX_HASHED {
        return Err(Obstacle::TooLong);
    }
    let readable =
        // Opened through the handle, so that it is the same file even if its path was replaced.
        openat(AT_FDCWD, own_link(file).as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let mut readable = File::from(readable.map_err(Obstacle::Unreadable)?);
    let digest = Digest::of(&mut readable)
        .map_err(|error| Obstacle::Unreadable(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    let now = fstat(&readable).map_err(Obstacle::Unreadable)?;
    // Written to while it was read: its contents are undefined.
    if Stamp::from(&now) != stamp {
        return Err(Obstacle::OtherFile);
    }
    lock(remembered).keep(stamp, digest, seconds_since_epoch());
    Ok(digest)
}

/// Never held while a file is read.
fn lock(remembered: &Mutex<Remembered>) -> MutexGuard<'_, Remembered> {
    remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds_since_epoch() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
