//! A launcher's connection: the one request that it brings, read without a byte beyond its announced
//! length, and system calls that are tried first and waited for only if they would block.
//!
//! A launcher's request is usually there when its connection is, and an answer fits the socket's
//! buffer. Trying first saves such a launch all but one turn of the event loop.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use devbox_launch_proto::{ErrorCode, HEADER_LEN, InvalidRequest, RequestHeader};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::refusal::{Failure, Refusal};

/// Most requests fit here, without an allocation.
const SMALL: usize = 512;
/// Room for a longer request grows as its bytes come, so that announcing a long one costs the
/// daemon no memory.
const STEP: usize = 4_096;

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
    // A launcher that has gone is an error here, and no SIGPIPE for the daemon.
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights };
    Ok(sendmsg::<()>(stream.as_raw_fd(), bytes, control, flags, None)?)
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) header: RequestHeader,
    small: [u8; SMALL],
    large: Vec<u8>,
}

impl Request {
    pub(super) fn body(&self) -> &[u8] {
        let len = self.header.body_len as usize;
        if self.large.is_empty() { &self.small[HEADER_LEN..HEADER_LEN + len] } else { &self.large }
    }

    pub(super) async fn read(stream: &Stream) -> Result<Self, Failure> {
        let mut small = [0; SMALL];
        let mut filled = 0;
        let header = loop {
            filled += read_some(stream, &mut small[filled..]).await?;
            if let Some(header) = small[..filled].first_chunk::<HEADER_LEN>() {
                break RequestHeader::decode(header).map_err(|error| refused(&error))?;
            }
        };
        let body_len = header.body_len as usize;
        if filled > HEADER_LEN + body_len {
            return Err(Refusal::invalid("the launch request is longer than it says it is").into());
        }
        if HEADER_LEN + body_len > SMALL {
            let large = read_large(stream, &small[HEADER_LEN..filled], body_len).await?;
            return Ok(Self { header, small, large });
        }
        while filled < HEADER_LEN + body_len {
            filled += read_some(stream, &mut small[filled..HEADER_LEN + body_len]).await?;
        }
        Ok(Self { header, small, large: Vec::new() })
    }
}

async fn read_large(stream: &Stream, start: &[u8], len: usize) -> Result<Vec<u8>, Failure> {
    let mut body = start.to_vec();
    while body.len() < len {
        let filled = body.len();
        // The room doubles with the bytes that came, so that a long body needs few reallocations.
        body.resize(len.min(filled + filled.max(STEP)), 0);
        let read = read_some(stream, &mut body[filled..]).await?;
        body.truncate(filled + read);
    }
    Ok(body)
}

async fn read_some(stream: &Stream, room: &mut [u8]) -> Result<usize, Failure> {
    match receive(stream, room).await? {
        0 => Err(Failure::Gone),
        read => Ok(read),
    }
}

fn refused(error: &InvalidRequest) -> Refusal {
    let code = match error {
        InvalidRequest::Version(_) => ErrorCode::Version,
        _ => ErrorCode::Invalid,
    };
    Refusal::new(code, &error.to_string())
}
