//! Whether a file was replaced or written, without reading it.

use std::path::Path;

use nix::sys::stat::{FileStat, stat};

/// One version of one file (stat(2)): where all of these are the same, it has not been written. The kernel sets the time of change
/// (`ctime`) itself, at every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: i64,
    /// In seconds and nanoseconds since the epoch.
    pub(crate) modified: (i64, i64),
    /// The same.
    pub(crate) changed: (i64, i64),
}

impl Stamp {
    /// Of the file at `path`, or what it links to; none where there is none.
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
