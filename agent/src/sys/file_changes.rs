//! Changes of files while the daemon runs: [`FileEvents`] wakes, by inotify(7), and [`Stamp`] compares, by stat(2).
//!
//! The watches are set before the process confines itself, and only read afterwards, so the seccomp filter needs no call for
//! them. They are on directories, because files are replaced by renaming. inotify misses the changes that another machine
//! makes in a network file system, and those in directories that a link points to only later; so files are compared after
//! each poll as well.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{FileStat, stat};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::debug;

use super::descriptors::{Owned, wait_for};

/// Room for events, in bytes: one has at most 272.
const EVENTS: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct FileEvents {
    inotify: Option<AsyncFd<Owned<Inotify>>>,
    seen: watch::Sender<()>,
}

impl FileEvents {
    /// Watches the directories of `paths`, and of what they link to. Call on the runtime, before the process confines itself.
    pub(crate) fn of(paths: &[&Path]) -> Self {
        let inotify = watch_directories_of(paths)
            .and_then(wait_for)
            .inspect_err(|error| debug!(%error, "no inotify(7): files are compared after each poll only"));
        Self { inotify: inotify.ok(), seen: watch::Sender::new(()) }
    }

    /// Wakes when something in one of the directories changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.seen.subscribe()
    }

    pub(crate) async fn run(self) -> Infallible {
        if let Some(inotify) = &self.inotify {
            // Stops only if the kernel fails to read an event. No case is known.
            while inotify.async_io(Interest::READABLE, drain).await.is_ok() {
                self.seen.send_replace(());
            }
        }
        // Never returns: dropping the sender would wake subscribers.
        pending().await
    }
}

fn watch_directories_of(paths: &[&Path]) -> io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_ONLYDIR;
    let targets = paths.iter().filter_map(|path| path.canonicalize().ok());
    let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).chain(targets).collect();
    for directory in paths.iter().filter_map(|path| path.parent()) {
        // A path of one component has an empty parent.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        // A missing directory is noticed by the comparison after a poll.
        if let Err(error) = inotify.add_watch(directory, events) {
            debug!(directory = %directory.display(), %error, "not watched");
        }
    }
    Ok(inotify)
}

fn drain(inotify: &Owned<Inotify>) -> io::Result<()> {
    read(&inotify.0, &mut [0; EVENTS]).map(drop).map_err(io::Error::from)
}

/// One version of one file (stat(2)): while all fields are equal, it has not been written. The kernel itself sets the time of
/// change (`ctime`) at every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: i64,
    /// In seconds and nanoseconds since the epoch.
    pub(crate) modified: (i64, i64),
    /// In seconds and nanoseconds since the epoch.
    pub(crate) changed: (i64, i64),
}

impl Stamp {
    /// The version of the file at `path`, symbolic links followed; `None` if there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        stat(path).ok().as_ref().map(Self::from)
    }
}

impl From<&FileStat> for Stamp {
    fn from(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn sees(path: &Path, change: impl FnOnce()) {
        let events = FileEvents::of(&[path]);
        let mut seen = events.subscribe();
        let task = tokio::spawn(events.run());
        change();
        timeout(PATIENCE, seen.changed()).await.expect("a change is not seen").unwrap();
        task.abort();
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_or_linked_anew_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = path("file");
        sees(&file, || fs::write(&file, "one").unwrap()).await;
        fs::write(path("new"), "two").unwrap();
        sees(&file, || fs::rename(path("new"), &file).unwrap()).await;
        fs::remove_file(&file).unwrap();
        sees(&file, || symlink("other", &file).unwrap()).await;
    }

    #[tokio::test]
    async fn the_file_that_a_link_points_to_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        fs::write(&target, "one").unwrap();
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        sees(&link, || fs::write(&target, "two").unwrap()).await;
    }
}
