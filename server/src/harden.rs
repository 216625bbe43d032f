//! What the process gives up before it reads its first secret: core dumps, being traced by its own user, and files that
//! others could read.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use thiserror::Error;

/// A protection that the kernel refused.
#[derive(Debug, Error)]
pub enum HardenError {
    /// `setrlimit(RLIMIT_CORE, 0)`, see setrlimit(2).
    #[error("core dumps could not be switched off; a core dump would write secrets to disk")]
    CoreDumps(#[source] nix::Error),
    /// `prctl(PR_SET_DUMPABLE, 0)`, see prctl(2).
    #[error("the process could not be made undumpable; other processes of this user could read its memory")]
    Dumpable(#[source] nix::Error),
}

/// Why memory can be swapped.
#[derive(Debug, Error)]
pub enum MemoryLockError {
    /// Under a limit, an allocation would fail in the middle of a request.
    #[error("locked memory is limited (RLIMIT_MEMLOCK): set LimitMEMLOCK=infinity, or switch swap off")]
    Limited,
    /// `mlockall`, see mlockall(2).
    #[error("mlockall failed")]
    Refused(#[source] nix::Error),
}

/// Switches off core dumps and tracing by the same user, and makes every new file private (umask 077). Locks memory if
/// that is possible.
///
/// # Errors
/// [`HardenError`]: start nothing after it.
pub fn harden() -> Result<(), HardenError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(HardenError::CoreDumps)?;
    prctl::set_dumpable(false).map_err(HardenError::Dumpable)?;
    umask(Mode::from_bits_truncate(0o077));
    // Best effort: a server says in its log what is missing.
    let _ = lock_memory();
    Ok(())
}

/// Keeps every page out of swap, from its first use on. With `MCL_FUTURE` all address space counts against
/// `RLIMIT_MEMLOCK`, and how much a server needs depends on its clients: so only without a limit.
///
/// # Errors
/// [`MemoryLockError`]: memory is as it was.
pub fn lock_memory() -> Result<(), MemoryLockError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(MemoryLockError::Refused)?;
    if hard != RLIM_INFINITY && !may_exceed_limits() {
        return Err(MemoryLockError::Limited);
    }
    if hard == RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).map_err(MemoryLockError::Refused)?;
    }
    // Pages are locked when they are first used: address space that nobody touches costs nothing.
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    mlockall(all).map_err(MemoryLockError::Refused)
}

/// Whether the process has `CAP_IPC_LOCK` (capabilities(7)).
fn may_exceed_limits() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|set| set & IPC_LOCK != 0)
}

/// Raises the soft limit of open files to the hard one: each held devbox request is a connection. Best effort: with
/// less, connections beyond the limit wait in the kernel's queue.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_dumps_no_core_and_is_not_dumpable() {
        harden().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(umask(Mode::from_bits_truncate(0o077)).bits(), 0o077);
    }
}
