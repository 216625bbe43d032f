//! System calls on a connection: tried at once, and waited for only where they would block.
//!
//! A launcher's request is usually there when its connection is, and an answer fits the socket's buffer. Trying first saves
//! such a launch all turns of the event loop but the one that brought it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Receives at least one byte; 0 at the end.
pub(super) async fn receive(stream: &UnixStream, room: &mut [u8]) -> io::Result<usize> {
    let mut call = || recv(stream.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from);
    match call() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            stream.async_io(Interest::READABLE, call).await
        }
        done => done,
    }
}

/// Sends some bytes, and `descriptors` with the first of them.
pub(super) async fn send(
    stream: &UnixStream,
    bytes: &[IoSlice<'_>],
    descriptors: &[RawFd],
) -> io::Result<usize> {
    let call = || send_now(stream, bytes, descriptors);
    match call() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            stream.async_io(Interest::WRITABLE, call).await
        }
        done => done,
    }
}

/// Sends what the socket's buffer takes.
pub(super) fn send_now(
    stream: &UnixStream,
    bytes: &[IoSlice<'_>],
    descriptors: &[RawFd],
) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights };
    Ok(sendmsg::<()>(stream.as_raw_fd(), bytes, control, flags, None)?)
}
