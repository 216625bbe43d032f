//! The kind of locked memory that this kernel has, probed once.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use serde::Deserialize;

use super::pages::{Account, copy_received};
use super::{LaunchPages, LockedPages, MemoryError};

/// The kind of memory that secrets are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// `memfd_secret(2)`: out of reach of root and of the kernel itself.
    MemfdSecret,
    /// `mlock(2)`, `MADV_DONTDUMP`, `MADV_WIPEONFORK`: root can still read it.
    Mlock,
}

impl Backing {
    /// A stable word for `status` and logs.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Mlock => "mlock",
        }
    }
}

/// The setting `memory.require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// `memfd_secret(2)` or an error.
    MemfdSecret,
    /// `memfd_secret(2)` if available, else `mlock(2)`.
    #[default]
    Any,
    /// `mlock(2)` always: a machine that hibernates cannot do so while `memfd_secret(2)` is in use.
    Mlock,
}

impl Requirement {
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Any => "any",
            Self::Mlock => "mlock",
        }
    }
}

/// Makes locked memory, of the best kind that this kernel and its limits allow. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretMemory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    limit: usize,
    page_size: usize,
    account: Arc<Account>,
}

#[derive(Debug)]
enum Source {
    /// With `/dev/zero`, from which the kernel fills the pages.
    MemfdSecret(File),
    /// With the reason against `memfd_secret`.
    Mlock(MemoryError),
}

impl SecretMemory {
    /// Probes the kernel with one page. `limit` is the most that one bundle may take, in bytes.
    ///
    /// # Errors
    /// [`MemoryError::Required`] if `requirement` is not met; the error of `mlock(2)` if even the fallback fails, because
    /// secrets are never in memory that could be swapped.
    pub fn probe(requirement: Requirement, limit: usize) -> Result<Self, MemoryError> {
        if requirement == Requirement::Mlock {
            return Self::mlock(limit, MemoryError::Chosen);
        }
        match (Self::memfd_secret(limit), requirement) {
            (Ok(memory), _) => Ok(memory),
            (Err(reason), Requirement::MemfdSecret) => Err(MemoryError::Required(Box::new(reason))),
            (Err(reason), Requirement::Any | Requirement::Mlock) => Self::mlock(limit, reason),
        }
    }

    fn memfd_secret(limit: usize) -> Result<Self, MemoryError> {
        let zeros = File::open("/dev/zero").map_err(|error| MemoryError::Zeros(errno(&error)))?;
        Self::tried(Source::MemfdSecret(zeros), limit)
    }

    /// The fallback, even if `memfd_secret(2)` would work. `reason` is for `status`.
    ///
    /// # Errors
    /// The error of `mlock(2)`.
    pub(crate) fn mlock(limit: usize, reason: MemoryError) -> Result<Self, MemoryError> {
        Self::tried(Source::Mlock(reason), limit)
    }

    fn tried(source: Source, limit: usize) -> Result<Self, MemoryError> {
        let page_size = page_size()?;
        let memory = Self(Arc::new(Inner { source, limit, page_size, account: Arc::default() }));
        memory.allocate(1)?;
        Ok(memory)
    }

    #[must_use]
    pub(crate) fn backing(&self) -> Backing {
        match self.0.source {
            Source::MemfdSecret(_) => Backing::MemfdSecret,
            Source::Mlock(_) => Backing::Mlock,
        }
    }

    /// Why it is not `memfd_secret(2)`; `None` if it is.
    #[must_use]
    pub(crate) fn fallback_reason(&self) -> Option<&MemoryError> {
        match &self.0.source {
            Source::MemfdSecret(_) => None,
            Source::Mlock(reason) => Some(reason),
        }
    }

    /// The protections of the pages that this kernel lacks, by the names of madvise(2).
    #[must_use]
    pub(crate) fn gaps(&self) -> Vec<&'static str> {
        self.0.account.refused()
    }

    /// The most that one bundle may take, in bytes.
    #[must_use]
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes locked right now: the generation, and the pages prepared for launches.
    #[must_use]
    pub(crate) fn bytes_locked(&self) -> usize {
        self.0.account.bytes()
    }

    /// `len` bytes, rounded up to whole pages, at least one; all zero. The descriptor behind them, if there is one, is
    /// closed already.
    ///
    /// # Errors
    /// [`MemoryError`], usually [`MemoryError::LockLimit`].
    pub(crate) fn allocate(&self, len: usize) -> Result<LockedPages, MemoryError> {
        let size = self.page_rounded(len)?;
        match &self.0.source {
            Source::MemfdSecret(zeros) => {
                LockedPages::secret(size, zeros, &self.0.account).map(|(pages, _)| pages)
            }
            Source::Mlock(_) => LockedPages::anonymous(size, &self.0.account),
        }
    }

    /// `len` bytes for one launch, rounded up to whole pages, with their descriptor.
    ///
    /// # Errors
    /// [`MemoryError`]; the reason against `memfd_secret(2)` if the backing is [`Backing::Mlock`].
    pub(crate) fn launch_pages(&self, len: usize) -> Result<LaunchPages, MemoryError> {
        let size = self.page_rounded(len)?;
        match &self.0.source {
            Source::MemfdSecret(zeros) => {
                LockedPages::secret(size, zeros, &self.0.account).map(LaunchPages::new)
            }
            Source::Mlock(reason) => Err(reason.clone()),
        }
    }

    /// A copy, in ordinary memory, of what a `memfd_secret(2)` descriptor holds: ciphertext that a predecessor left.
    ///
    /// # Errors
    /// [`MemoryError`] if it cannot be mapped.
    pub(crate) fn copy_received(&self, descriptor: &OwnedFd) -> Result<Vec<u8>, MemoryError> {
        copy_received(descriptor)
    }

    fn page_rounded(&self, len: usize) -> Result<NonZeroUsize, MemoryError> {
        len.max(1)
            .checked_next_multiple_of(self.0.page_size)
            .and_then(NonZeroUsize::new)
            .ok_or(MemoryError::System { call: "mmap", len, source: Errno::EOVERFLOW })
    }
}

fn page_size() -> Result<usize, MemoryError> {
    let fail = |source| MemoryError::System { call: "sysconf", len: 0, source };
    let size = sysconf(SysconfVar::PAGE_SIZE).map_err(fail)?;
    size.and_then(|size| usize::try_from(size).ok()).ok_or(fail(Errno::EINVAL))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
