//! Noticing others' writes: a look at `PRAGMA data_version` is the truth, and inotify on the state's directory is the doorbell, so
//! that an idle server sleeps.
//!
//! A commit writes to the write-ahead log first and is visible only after the log is on disk, so the bell rings too early: after it
//! the watcher looks every [`LOOK_EVERY`] for as long as a commit may take. Without a bell it always does.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::store::StoreError;

/// How often to look while somebody may be writing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long after a ring somebody may be writing: as long as a write waits for another one, and for a slow disk.
const LISTEN: Duration = Duration::from_secs(10);

/// How often to look although nothing rang.
const LOOK_WHILE_IDLE: Duration = Duration::from_secs(10);

/// A connection of its own: `data_version` changes there when any other connection, of this process or another, has written.
#[derive(Debug)]
pub(super) struct Watcher {
    connection: SqliteConnection,
    directory: PathBuf,
    bell: Bell,
    seen: Option<i64>,
    last_look: Option<Instant>,
    /// Until when somebody may be writing.
    listen_until: Instant,
}

#[derive(Debug)]
enum Bell {
    /// Set up at the first look: most commands never look.
    Unhung,
    Hung(Receiver),
    /// The system has no room for one.
    Missing,
}

impl Watcher {
    /// Watches the database that lies in `directory`.
    pub(super) fn new(connection: SqliteConnection, directory: &Path) -> Self {
        Self {
            connection,
            directory: directory.to_owned(),
            bell: Bell::Unhung,
            seen: None,
            last_look: None,
            listen_until: Instant::now(),
        }
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }

    /// Returns when somebody may have written since the last call. Two looks are never closer than [`LOOK_EVERY`].
    pub(super) async fn changed(&mut self) -> Result<(), StoreError> {
        if matches!(self.bell, Bell::Unhung) {
            self.bell = Bell::hang(&self.directory);
        }
        loop {
            self.pause().await;
            self.last_look = Some(Instant::now());
            if self.has_changed().await? {
                return Ok(());
            }
        }
    }

    /// Waits until the next look is due.
    async fn pause(&mut self) {
        let Some(last_look) = self.last_look else { return };
        if let Bell::Hung(bell) = &self.bell {
            let rang = drain(bell);
            let is_quiet = !rang && Instant::now() >= self.listen_until;
            if is_quiet && timeout_at(last_look + LOOK_WHILE_IDLE, bell.readable()).await.is_err() {
                return;
            }
            if rang || is_quiet {
                self.listen_until = Instant::now() + LISTEN;
            }
        }
        sleep_until(last_look + LOOK_EVERY).await;
    }

    async fn has_changed(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        let version = Some(row.try_get(0)?);
        let changed = version != self.seen;
        self.seen = version;
        Ok(changed)
    }
}

impl Bell {
    fn hang(directory: &Path) -> Self {
        match notifications(directory) {
            Ok(bell) => Self::Hung(bell),
            Err(error) => {
                tracing::warn!(%error, "inotify is unavailable: the database is looked at four times a second");
                Self::Missing
            }
        }
    }
}

/// Changes of files in one directory. The runtime has no type for inotify; its pipe only waits and reads, which is all that is
/// needed of it.
fn notifications(directory: &Path) -> std::io::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(directory, changes)?;
    Receiver::from_file_unchecked(File::from(inotify.as_fd().try_clone_to_owned()?))
}

/// Takes all notifications; whether there was one.
fn drain(bell: &Receiver) -> bool {
    // An event has at most 272 bytes (inotify(7)).
    let mut events = [0; 4096];
    let mut rang = false;
    while bell.try_read(&mut events).is_ok_and(|len| len > 0) {
        rang = true;
    }
    rang
}
