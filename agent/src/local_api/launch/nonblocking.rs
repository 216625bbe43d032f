//! System calls on a connection that are tried first, and waited for only if they would block.
//!
//! A launcher's request is usually there when its connection is, and an answer fits the socket's
//! buffer. Trying first saves such a launch all but one turn of the event loop.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connection that is registered with the event loop only when it has to wait: most never do,
/// which saves two system calls and a wake-up.
#[derive(Debug)]
pub(super) struct Stream {
    waiting: OnceLock<AsyncFd<Arc<UnixStream>>>,
    /// Each call passes `MSG_DONTWAIT`.
    socket: Arc<UnixStream>,
}

impl Stream {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { waiting: OnceLock::new(), socket: Arc::new(socket) }
    }

    async fn retry<T>(&self, interest: Interest, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.waiting()?.async_io(interest, |_| call()).await
            }
            done => done,
        }
    }

    fn waiting(&self) -> io::Result<&AsyncFd<Arc<UnixStream>>> {
        if let Some(waiting) = self.waiting.get() {
            return Ok(waiting);
        }
        let waiting = in_event_loop(Arc::clone(&self.socket))?;
        Ok(self.waiting.get_or_init(|| waiting))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[allow(
    deprecated,
    reason = "the successor is unsafe, for owners that close early; those of the library that come here do not"
)]
fn in_event_loop<T: AsRawFd + AsFd>(socket: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(socket)
}

/// Receives at least one byte; 0 at the end of the stream.
pub(super) async fn receive(stream: &Stream, room: &mut [u8]) -> io::Result<usize> {
    let call = || recv(stream.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from);
    stream.retry(Interest::READABLE, call).await
}

/// Sends some bytes, and `descriptors` with the first of them.
pub(super) async fn send(stream: &Stream, bytes: &[IoSlice<'_>], descriptors: &[RawFd]) -> io::Result<usize> {
    stream.retry(Interest::WRITABLE, || send_now(stream, bytes, descriptors)).await
}

/// Sends as much as the socket's buffer takes.
pub(super) fn send_now(stream: &Stream, bytes: &[IoSlice<'_>], descriptors: &[RawFd]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights };
    Ok(sendmsg::<()>(stream.as_raw_fd(), bytes, control, flags, None)?)
}
