//! The accept loop that every socket of this devbox is served by, and the slots that bound its connections.
//!
//! A further socket is a folder beside this file and a loop over [`Acceptor::accept`].

use std::io;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream as TokioStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::consume_budget;
use tokio::time::sleep;
use tracing::error;

use crate::sys::{Owned, wait_for};

/// Pause after a failed accept, so that exhausted descriptors do not make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Acceptor {
    listener: AsyncFd<Owned<StdListener>>,
    socket: &'static str,
}

impl Acceptor {
    /// `None` if the runtime cannot watch the listener, which is logged. `socket`: its name in the log.
    pub(super) fn new(listener: UnixListener, socket: &'static str) -> Option<Self> {
        match listener.into_std().and_then(wait_for) {
            Ok(listener) => Some(Self { listener, socket }),
            Err(error) => {
                error!(%error, socket, "a socket cannot be served: restart the daemon");
                None
            }
        }
    }

    /// Waits for a connection, then for `ready`, and accepts. Until then the connection stays in the kernel's queue, where
    /// it survives a restart of the daemon. `None` if the connection has gone or accepting fails, which is logged: call
    /// again.
    pub(super) async fn accept<T>(&self, ready: impl Future<Output = T>) -> Option<(UnixStream, T)> {
        // Readiness costs no budget, and a flood of connections keeps the listener ready.
        consume_budget().await;
        let mut waiting = match self.listener.readable().await {
            Ok(waiting) => waiting,
            Err(error) => return self.recover(&error).await,
        };
        // Waited for before the accept: an accepted connection would be lost at a restart.
        let value = ready.await;
        match waiting.try_io(|listener| listener.get_ref().0.accept()) {
            Ok(Ok((stream, _))) => Some((stream, value)),
            Ok(Err(error)) => self.recover(&error).await,
            Err(_would_block) => None,
        }
    }

    async fn recover<T>(&self, error: &io::Error) -> Option<T> {
        let transient = [Errno::ECONNABORTED, Errno::EINTR].map(|errno| Some(errno as i32));
        if !transient.contains(&error.raw_os_error()) {
            let socket = self.socket;
            error!(%error, socket, "a connection cannot be accepted; if descriptors are short, raise LimitNOFILE=");
            sleep(ACCEPT_PAUSE).await;
        }
        None
    }
}

pub(super) fn in_runtime(stream: UnixStream) -> io::Result<TokioStream> {
    stream.set_nonblocking(true)?;
    TokioStream::from_std(stream)
}

/// A number of connections that are served at once; more wait in the kernel's queue. For sockets on which no peer can keep
/// others out; launches have slots that users share.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    count: u32,
}

/// Free again when dropped.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(count as usize)), count }
    }

    pub(super) async fn take(&self) -> Slot {
        // It fails only when the semaphore is closed, which it never is.
        Slot(Arc::clone(&self.free).acquire_owned().await.ok())
    }

    pub(super) async fn all_free(&self) {
        drop(self.free.acquire_many(self.count).await);
    }
}
