//! Waits for any descriptor of the kernel's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that stays open and the same as long as it is owned.
#[derive(Debug)]
pub(crate) struct Owned<T>(pub(crate) T);

impl<T: AsFd> AsRawFd for Owned<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers `descriptor`, which must not block, with the runtime that this is called on.
///
/// # Errors
/// The kernel cannot wait for it.
pub(crate) fn wait_for<T: AsFd>(descriptor: T) -> io::Result<AsyncFd<Owned<T>>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for owners that change their descriptor; none of ours does"
    )]
    AsyncFd::with_interest(Owned(descriptor), Interest::READABLE)
}
