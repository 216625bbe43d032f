//! Notices writes of other connections by `PRAGMA data_version`. inotify on the state's directory
//! (the bell) wakes the watcher, so that an idle server sleeps.
//!
//! A commit writes to the write-ahead log first and is visible only after the log is on disk, so
//! the bell rings too early: after it the watcher queries every [`LOOK_EVERY`] for as long as a
//! commit may take. Without a bell it always does.
//!
//! A notification may be lost, so an idle watcher does not rely on it: it compares the files' sizes
//! and times with those before its last query. A query would wake SQLite's thread and two of the
//! runtime's; the comparison wakes one.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use crate::store::StoreError;

/// The interval of checks while a write may be in progress.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long after a notification a write may be in progress: as long as it waits for another one,
/// and for a slow disk.
const LISTEN: Duration = Duration::from_secs(10);

/// The interval of comparing the files although the bell did not ring.
const LOOK_WHILE_IDLE: Duration = Duration::from_secs(10);

/// From this age on a file's time distinguishes one write from the next: the kernel's clock for it
/// moves every few milliseconds.
const SETTLED: Duration = Duration::from_secs(1);

/// A connection of its own: `data_version` changes there when any other connection, of this process
/// or another, has written.
#[derive(Debug)]
pub(super) struct Watcher {
    connection: SqliteConnection,
    files: [PathBuf; 2],
    bell: Bell,
    seen: Option<i64>,
    /// The files before the last query; `None` if they had changed just before.
    stamps: Option<[Stamp; 2]>,
    last_look: Option<Instant>,
    /// The end of the time in which a write may be in progress.
    listen_until: Instant,
}

#[derive(Debug)]
enum Bell {
    /// Set up at the first check, which most commands never make.
    Unhung,
    Hung(Receiver),
    Missing,
}

impl Watcher {
    pub(super) fn new(connection: SqliteConnection, database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self {
            connection,
            files: [database.to_owned(), log.into()],
            bell: Bell::Unhung,
            seen: None,
            stamps: None,
            last_look: None,
            listen_until: Instant::now(),
        }
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }

    /// Returns when another connection may have written since the last call. Two checks are at
    /// least [`LOOK_EVERY`] apart.
    pub(super) async fn changed(&mut self) -> Result<(), StoreError> {
        if matches!(self.bell, Bell::Unhung) {
            self.bell = Bell::hang(self.files[0].parent().unwrap_or(Path::new(".")));
        }
        loop {
            self.pause().await;
            self.last_look = Some(Instant::now());
            // Read before the query, so that a later write is not mistaken for an earlier one.
            self.stamps = self.settled_stamps();
            if self.has_changed().await? {
                return Ok(());
            }
        }
    }

    /// Waits until the next query is due.
    async fn pause(&mut self) {
        let Some(last_look) = self.last_look else { return };
        if let Bell::Hung(bell) = &self.bell {
            let rang = drain(bell);
            let is_quiet = !rang && Instant::now() >= self.listen_until;
            if is_quiet && !self.rings(bell).await {
                return;
            }
            if rang || is_quiet {
                self.listen_until = Instant::now() + LISTEN;
            }
        }
        sleep_until(last_look + LOOK_EVERY).await;
    }

    /// Waits until the bell rings; `false` if the files have changed without it.
    async fn rings(&self, bell: &Receiver) -> bool {
        while timeout(LOOK_WHILE_IDLE, bell.readable()).await.is_err() {
            if self.stamps.is_none() || self.settled_stamps() != self.stamps {
                return false;
            }
        }
        true
    }

    /// The files as they are; `None` if they have changed just now, so that the next change may
    /// leave the same times.
    fn settled_stamps(&self) -> Option<[Stamp; 2]> {
        let stamps = self.files.each_ref().map(|file| Stamp::of(file));
        let latest = SystemTime::now() - SETTLED;
        stamps.iter().all(|stamp| stamp.modified < latest).then_some(stamps)
    }

    async fn has_changed(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        let version = Some(row.try_get(0)?);
        let changed = version != self.seen;
        self.seen = version;
        Ok(changed)
    }
}

/// How a file was last written; the zeros of an absent file are one more state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: SystemTime,
    inode: u64,
}

impl Stamp {
    fn of(file: &Path) -> Self {
        let absent = Self { len: 0, modified: SystemTime::UNIX_EPOCH, inode: 0 };
        std::fs::metadata(file).map_or(absent, |data| Self {
            len: data.len(),
            modified: data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            inode: data.ino(),
        })
    }
}

impl Bell {
    fn hang(directory: &Path) -> Self {
        match notifications(directory) {
            Ok(bell) => Self::Hung(bell),
            Err(error) => {
                tracing::warn!(%error, "inotify is unavailable: the database is checked four times a second");
                Self::Missing
            }
        }
    }
}

/// Changes of files in one directory. The runtime has no type for inotify; its pipe only waits and
/// reads, which is all that is needed of it.
fn notifications(directory: &Path) -> std::io::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(directory, changes)?;
    Receiver::from_file_unchecked(File::from(inotify.as_fd().try_clone_to_owned()?))
}

/// Takes all notifications; returns whether there was one.
fn drain(bell: &Receiver) -> bool {
    // An event has at most 272 bytes (inotify(7)).
    let mut events = [0; 4096];
    let mut rang = false;
    while bell.try_read(&mut events).is_ok_and(|len| len > 0) {
        rang = true;
    }
    rang
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    use super::*;

    /// A bell that does not ring stands for a notification that is lost.
    #[tokio::test]
    async fn a_commit_without_a_notification_is_noticed_at_the_next_idle_look() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let database = directory.path().join("state");
        let options = SqliteConnectOptions::new()
            .filename(&database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut writer = options.connect().await.unwrap();
        sqlx::query("CREATE TABLE t (n INTEGER)").execute(&mut writer).await.unwrap();
        let mut watcher = Watcher::new(options.connect().await.unwrap(), &database);
        watcher.bell = Bell::hang(elsewhere.path());
        // Long enough ago that the files' times show the next write.
        for file in &watcher.files {
            let hour_ago = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(file).unwrap().set_modified(hour_ago).unwrap();
        }
        watcher.changed().await.unwrap();
        assert!(watcher.stamps.is_some());
        sqlx::query("INSERT INTO t VALUES (1)").execute(&mut writer).await.unwrap();
        let noticed = timeout(3 * LOOK_WHILE_IDLE, watcher.changed()).await;
        noticed.expect("at the next look at the files").unwrap();
    }
}
