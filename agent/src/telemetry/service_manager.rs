//! sd_notify(3): readiness, a line of status, the watchdog, descriptors that are stored. Without a
//! service manager each does nothing.
//!
//! A service manager that does not read must not stop the daemon, so every datagram is sent without
//! waiting. Status and watchdog may be lost. Readiness and removals from the store may not: they
//! are kept, and sent again in order. A removal that waits already is not kept twice, and nothing
//! is stored while the service manager does not read, so few ever wait.

use std::collections::VecDeque;
use std::env;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error};

/// Between two attempts to send to a service manager that does not read.
const AGAIN: Duration = Duration::from_millis(50);

/// Where the service manager reads: `$NOTIFY_SOCKET`, a path or, with `@` before it, an abstract
/// name.
static MANAGER: LazyLock<Option<UnixAddr>> =
    LazyLock::new(|| address(env::var_os("NOTIFY_SOCKET")?.as_bytes()).ok());
/// Most messages that wait: many times the descriptors that the service manager stores
/// (`FileDescriptorStoreMax=`).
const MOST_UNSENT: usize = 64;

static UNSENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
static IS_SENDING: AtomicBool = AtomicBool::new(false);

/// The first bundle is there: launches succeed from now on.
pub(crate) fn ready() {
    deliver("READY=1".to_owned());
}

pub(crate) fn stopping() {
    notify("STOPPING=1");
}

pub(crate) fn status(line: &str) {
    notify(&format!("STATUS={line}"));
}

/// Has the service manager keep `descriptor` for a successor, as `name`.
///
/// # Errors
/// It does not read just now, or cannot be reached.
pub(crate) fn store(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}"), &[descriptor])
}

/// Has the service manager close what it keeps as `name`.
pub(crate) fn remove(name: &str) {
    deliver(format!("FDSTOREREMOVE=1\nFDNAME={name}"));
}

/// Keeps the watchdog quiet, at twice the pace that it asks for, as long as this runtime turns; for
/// ever.
pub(crate) async fn feed_watchdog() {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut pace = interval((deadline / 2).max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        while is_blocked(&send("WATCHDOG=1", &[])) {
            sleep(AGAIN).await;
        }
    }
}

/// Waits until the service manager has done everything that it was sent before: it closes its end
/// of a pipe then (`BARRIER=1`). For ever if it does not.
///
/// # Errors
/// There is no pipe, or the service manager cannot be reached.
pub(crate) async fn caught_up() -> io::Result<()> {
    let (ours, theirs) = io::pipe()?;
    while !send_unsent() {
        sleep(AGAIN).await;
    }
    loop {
        match send("BARRIER=1", &[theirs.as_fd()]) {
            blocked if is_blocked(&blocked) => sleep(AGAIN).await,
            sent => break sent?,
        }
    }
    drop(theirs);
    Receiver::from_owned_fd(ours.into())?.read(&mut [0]).await.map(drop)
}

/// A message that may be lost.
fn notify(message: &str) {
    if let Err(error) = send(message, &[]) {
        debug!(%error, "a message to the service manager is lost");
    }
}

/// A message that may not.
fn deliver(message: String) {
    if !keep(&mut UNSENT.lock().unwrap_or_else(PoisonError::into_inner), message) {
        error!(
            "the service manager has read nothing for so long that a message to it is lost: restart this unit, so \
             that no stored descriptor is left behind"
        );
    }
    if !send_unsent() {
        keep_sending();
    }
}

/// Keeps a message that does not wait yet; `false` if too many do.
fn keep(unsent: &mut VecDeque<String>, message: String) -> bool {
    if unsent.contains(&message) {
        return true;
    }
    let has_room = unsent.len() < MOST_UNSENT;
    if has_room {
        unsent.push_back(message);
    }
    has_room
}

/// Returns whether everything is sent, or has failed for good.
fn send_unsent() -> bool {
    let mut unsent = UNSENT.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(message) = unsent.front() {
        match send(message, &[]) {
            blocked if is_blocked(&blocked) => return false,
            Err(error) => debug!(%error, "the service manager cannot be reached"),
            Ok(()) => {}
        }
        unsent.pop_front();
    }
    true
}

/// Before the runtime runs, the next message tries again.
fn keep_sending() {
    let Ok(runtime) = Handle::try_current() else { return };
    if !IS_SENDING.swap(true, Ordering::AcqRel) {
        runtime.spawn(async {
            while !send_unsent() {
                sleep(AGAIN).await;
            }
            IS_SENDING.store(false, Ordering::Release);
        });
    }
}

fn send(message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    MANAGER.as_ref().map_or(Ok(()), |manager| send_to(manager, message, descriptors))
}

fn send_to(manager: &UnixAddr, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(message.as_bytes())], control, flags, Some(manager))?;
    Ok(())
}

fn is_blocked(sent: &io::Result<()>) -> bool {
    sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn address(socket: &[u8]) -> nix::Result<UnixAddr> {
    match socket.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let address = address(path.as_os_str().as_bytes()).unwrap();
        let blocked = std::iter::repeat_with(|| send_to(&address, "STATUS=busy", &[])).find(Result::is_err);
        assert!(is_blocked(&blocked.unwrap()));
        let mut message = [0; 64];
        let len = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..len], b"STATUS=busy");
        send_to(&address, "READY=1", &[]).unwrap();
    }

    #[test]
    fn messages_that_wait_are_bounded_and_none_waits_twice() {
        let mut unsent = VecDeque::new();
        for _ in 0..1_000 {
            assert!(keep(&mut unsent, "FDSTOREREMOVE=1\nFDNAME=a".to_owned()));
        }
        assert_eq!(unsent.len(), 1);
        let kept = (0..1_000).filter(|number| keep(&mut unsent, format!("FDNAME={number}"))).count();
        assert_eq!((kept, unsent.len()), (MOST_UNSENT - 1, MOST_UNSENT));
    }

    #[test]
    fn an_abstract_name_is_an_address_too() {
        assert_eq!(address(b"@manager").unwrap().as_abstract(), Some(&b"manager"[..]));
        assert_eq!(address(b"/run/notify").unwrap().path(), Some(std::path::Path::new("/run/notify")));
    }
}
