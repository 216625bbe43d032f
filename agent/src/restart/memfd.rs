//! The file of an image: a `memfd_secret` if the kernel has one, else a sealed memfd. Its bytes are ciphertext in either.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;

use super::image::InvalidImage;
use crate::sys::{Backing, MemoryError, SecretMemory};

/// Most bytes that are read: the largest bundle and its notes.
const MAX_LEN: u64 = 1 << 30;

#[derive(Debug, Error)]
pub(super) enum MediumError {
    #[error("memory cannot be locked for it")]
    Memory(#[from] MemoryError),
    #[error("its descriptor is unusable")]
    Descriptor(#[from] io::Error),
    #[error(transparent)]
    Image(#[from] InvalidImage),
}

/// Makes a descriptor of `len` bytes, rounded up to pages, and has `fill` write them.
pub(super) fn write(
    memory: &SecretMemory,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), InvalidImage>,
) -> Result<OwnedFd, MediumError> {
    match memory.backing() {
        Backing::MemfdSecret => {
            let mut pages = memory.launch_pages(len)?;
            fill(&mut pages.bytes_mut()[..len])?;
            Ok(pages.into_descriptor())
        }
        Backing::Mlock => {
            let mut bytes = vec![0; len];
            fill(&mut bytes)?;
            Ok(sealed_memfd(&bytes)?)
        }
    }
}

/// A sealed memfd: a process that gets the descriptor cannot alter the bytes.
fn sealed_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"devbox-secrets", flags)?);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

pub(super) fn read(memory: &SecretMemory, descriptor: OwnedFd) -> Result<Vec<u8>, MediumError> {
    if is_readable(&descriptor) { Ok(copied(descriptor)?) } else { Ok(memory.copy_received(&descriptor)?) }
}

/// Whether it is a `memfd_secret`, which has no read(2).
fn is_readable(descriptor: &OwnedFd) -> bool {
    !matches!(nix::unistd::read(descriptor.as_fd(), &mut []), Err(Errno::EINVAL))
}

fn copied(descriptor: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(descriptor);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}
