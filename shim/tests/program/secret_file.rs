//! A file as the daemon makes one for each launch.
#![allow(
    unsafe_code,
    reason = "memfd_secret(2) has no safe wrapper, and its file is written by mapping only"
)]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A `memfd_secret(2)` that holds `bytes`; an ordinary `memfd_create(2)` if the kernel has none, which CI does not accept.
pub(crate) fn secret_file(bytes: &[u8]) -> OwnedFd {
    open_secret_file(bytes).0
}

/// As [`secret_file`], with the daemon's own mapping of it.
pub(crate) fn open_secret_file(bytes: &[u8]) -> (OwnedFd, Option<Mapping>) {
    let file = memfd_secret().unwrap_or_else(|| {
        devbox_secrets_tests::needs::skipped(
            "a kernel with memfd_secret for its last part: memfd_create serves instead",
        );
        nix::sys::memfd::memfd_create("secret", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap()
    });
    nix::unistd::ftruncate(&file, i64::try_from(bytes.len()).unwrap()).unwrap();
    let mut mapping = (!bytes.is_empty()).then(|| Mapping::new(&file, bytes.len()));
    if let Some(mapping) = &mut mapping {
        mapping.write(0, bytes);
    }
    (file, mapping)
}

/// Whether this kernel has `memfd_secret(2)`.
pub(crate) fn memfd_secret_exists() -> bool {
    memfd_secret().is_some()
}

fn memfd_secret() -> Option<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(result).unwrap();
    // SAFETY: a new descriptor, which nobody else owns.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A shared mapping, unmapped on drop.
pub(crate) struct Mapping {
    address: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: an address range belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, len: usize) -> Self {
        let len = len.try_into().unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let address = unsafe { mmap(None, len, ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, file, 0) };
        Self { address: address.unwrap(), len }
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len.get());
        // SAFETY: `at` is within the mapping.
        let to = unsafe { self.address.cast::<u8>().as_ptr().add(at) };
        // SAFETY: the mapping has as many bytes from there on, and this process has no reference to them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { munmap(self.address, self.len.get()) }.unwrap();
    }
}

/// An ordinary file with nothing in it.
pub(crate) fn empty_file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}
