//! Errors of locked memory, each with its remedy.

use std::fmt;

use nix::errno::Errno;
use nix::libc::rlim_t;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use thiserror::Error;

#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum MemoryError {
    /// `memfd_secret(2)` is `ENOSYS`.
    #[error(
        "this kernel has no memfd_secret(2): run Linux 6.5 or later, or boot an older one (5.14 or later) with \
         secretmem.enable=1"
    )]
    Unavailable,
    /// `memfd_secret(2)` is `EPERM` or `EACCES`: a seccomp filter.
    #[error(
        "this process may not call memfd_secret(2): allow it in the sandbox's system call filter (systemd: \
         SystemCallFilter=memfd_secret)"
    )]
    Forbidden,
    /// The configuration asks for `mlock(2)`.
    #[error("memory.require = \"mlock\" asks for it")]
    Chosen,
    #[error(
        "{len} bytes of memory cannot be locked: the limit is {limit}; raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=) \
         or grant CAP_IPC_LOCK"
    )]
    LockLimit {
        /// The requested size, in bytes.
        len: usize,
        /// The limit of this process.
        limit: LockLimit,
    },
    #[error("no file descriptor is left for locked memory: raise RLIMIT_NOFILE (systemd: LimitNOFILE=)")]
    Descriptors,
    /// `/dev/zero` cannot be opened.
    #[error("/dev/zero cannot be opened: the daemon's /dev needs it (systemd: PrivateDevices=yes has it)")]
    Zeros(#[source] Errno),
    #[error("{call} failed for {len} bytes of locked memory")]
    System {
        call: &'static str,
        /// The requested size, in bytes.
        len: usize,
        /// Its error.
        #[source]
        source: Errno,
    },
    /// `memory.require = "memfd_secret"` cannot be met.
    #[error(
        "memory.require = \"memfd_secret\" cannot be met; remove the reason, or set memory.require = \"any\" to accept \
         mlock(2)"
    )]
    Required(#[source] Box<Self>),
}

impl MemoryError {
    /// The error of `call` for `len` bytes.
    pub(super) fn from_call(call: &'static str, len: usize, source: Errno) -> Self {
        match (call, source) {
            ("memfd_secret", Errno::ENOSYS) => Self::Unavailable,
            ("memfd_secret", Errno::EPERM | Errno::EACCES) => Self::Forbidden,
            ("memfd_secret", Errno::EMFILE | Errno::ENFILE) => Self::Descriptors,
            // Linux 6.18 refuses the mapping; recent 6.12 its first touch, which is EFAULT because the kernel touches.
            ("mmap", Errno::EAGAIN) | ("read", Errno::EFAULT) => Self::lock_limit(len),
            // mlock(2): ENOMEM over the limit, EPERM if the limit is 0, EAGAIN if some pages could not be locked.
            ("mlock", Errno::ENOMEM | Errno::EPERM | Errno::EAGAIN) => Self::lock_limit(len),
            _ => Self::System { call, len, source },
        }
    }

    fn lock_limit(len: usize) -> Self {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).ok().map(|(soft, _)| soft);
        Self::LockLimit { len, limit: LockLimit(limit) }
    }
}

/// The soft `RLIMIT_MEMLOCK`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockLimit(Option<rlim_t>);

impl fmt::Display for LockLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(RLIM_INFINITY) => f.write_str("that of the machine"),
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernels_refusal_has_its_remedy() {
        let remedy = |call, source| MemoryError::from_call(call, 4096, source).to_string();
        assert!(remedy("memfd_secret", Errno::ENOSYS).contains("secretmem.enable=1"));
        assert!(remedy("memfd_secret", Errno::EPERM).contains("SystemCallFilter=memfd_secret"));
        assert!(remedy("memfd_secret", Errno::EMFILE).contains("LimitNOFILE="));
        for (call, source) in [
            ("mmap", Errno::EAGAIN),
            ("read", Errno::EFAULT),
            ("mlock", Errno::ENOMEM),
            ("mlock", Errno::EPERM),
        ] {
            assert!(remedy(call, source).contains("LimitMEMLOCK="), "{call} {source}");
        }
    }

    #[test]
    fn an_unforeseen_error_keeps_its_call_and_source() {
        let error = MemoryError::from_call("ftruncate", 8192, Errno::EINVAL);
        assert_eq!(error.to_string(), "ftruncate failed for 8192 bytes of locked memory");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), Errno::EINVAL.to_string());
    }
}
