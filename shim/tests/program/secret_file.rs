//! A file as the daemon makes one for each launch.
#![allow(
    unsafe_code,
    reason = "memfd_secret(2) has no safe wrapper, and its file is written by mapping only"
)]

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

/// A `memfd_secret(2)` that holds `bytes`; an ordinary `memfd_create(2)` if the kernel has none, which CI does not accept.
pub(crate) fn secret_file(bytes: &[u8]) -> OwnedFd {
    let file = memfd_secret().unwrap_or_else(|| {
        crate::needs::skipped("a kernel with memfd_secret for its last part: memfd_create serves instead");
        nix::sys::memfd::memfd_create("secret", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap()
    });
    nix::unistd::ftruncate(&file, i64::try_from(bytes.len()).unwrap()).unwrap();
    if !bytes.is_empty() {
        fill(&file, bytes);
    }
    file
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

fn fill(file: &OwnedFd, bytes: &[u8]) {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    let len = bytes.len().try_into().unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let mapping = unsafe { mmap(None, len, ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, file, 0) }.unwrap();
    // SAFETY: the mapping has as many bytes, and nobody else has it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.cast().as_ptr(), bytes.len()) };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(mapping, bytes.len()) }.unwrap();
}

/// An ordinary file with nothing in it.
pub(crate) fn empty_file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}
