//! sd_notify(3): readiness, a line of status, the watchdog, what is stored. Without a service manager each is nothing.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

/// The first bundle is there: launches succeed from now on.
pub fn ready() {
    notify(&NotifyState::Ready);
}

/// The daemon ends.
pub fn stopping() {
    notify(&NotifyState::Stopping);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    notify(&NotifyState::Status(line));
}

/// Keeps the watchdog quiet, at twice the pace that it asks for, as long as this runtime turns; for ever.
pub async fn feed_watchdog() {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut pace = interval((deadline / 2).max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        notify(&NotifyState::Watchdog);
    }
}

/// Waits until the service manager has done what it was told before: it closes its end of a pipe then (`BARRIER=1`). For ever
/// where it does not.
///
/// # Errors
/// There is no pipe, or the service manager cannot be told.
pub async fn caught_up() -> io::Result<()> {
    let (ours, theirs) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    Receiver::from_owned_fd(ours.into())?.read(&mut [0]).await.map(drop)
}

fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        debug!(%error, "the service manager could not be told");
    }
}
