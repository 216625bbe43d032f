//! File descriptors: [`Inherited`] are those that the service manager passed at the start of this process (sd_listen_fds(3)),
//! sockets and a predecessor's images; [`wait_for`] waits for any descriptor.
#![allow(
    unsafe_code,
    reason = "a descriptor that was passed at the start is only a number until it is owned"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors, by the names that their units give them.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(String, OwnedFd)>);

impl Inherited {
    /// Takes them. Empty the second time, and without a service manager. Call before anything opens a descriptor.
    ///
    /// # Errors
    /// The service manager's variables contradict each other, or name a descriptor that is not open.
    pub(crate) fn take() -> io::Result<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        // Marks each close-on-exec, which fails if the number is not an open descriptor.
        let passed = sd_notify::listen_fds_with_names()?;
        // SAFETY: the number is an open descriptor, as was just seen; the service manager opened it for this process, the
        // flag above lets this be done once, and nothing else in this program takes numbers for descriptors.
        Ok(Self(passed.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect()))
    }

    pub(crate) fn named(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn all(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
        self.0.extract_if(.., |(name, _)| wanted(name)).collect()
    }
}

/// An owner of one descriptor, which stays open and does not change.
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
