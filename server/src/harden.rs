//! The server's first protections, taken before it reads a secret: no core dumps, no tracing by its
//! own user, no files that others can read, no swap.

use devbox_secrets_common::process;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
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

#[derive(Debug, Error)]
pub(crate) enum MemoryLockError {
    /// Under a limit, an allocation would fail in the middle of a request.
    #[error("locked memory is limited (RLIMIT_MEMLOCK): set LimitMEMLOCK=infinity, or switch swap off")]
    Limited,
    /// `mlockall`, see mlockall(2).
    #[error("mlockall failed")]
    Refused(#[source] nix::Error),
}

/// Switches off core dumps and tracing by the same user, and makes every new file private (umask
/// 077). Locks memory if that is possible.
///
/// # Errors
/// [`HardenError`]: the program must stop.
pub fn harden() -> Result<(), HardenError> {
    process::disable_core_dumps().map_err(HardenError::CoreDumps)?;
    process::make_undumpable().map_err(HardenError::Dumpable)?;
    process::make_new_files_private();
    // Best effort: `serve` logs what is missing.
    let _ = lock_memory();
    Ok(())
}

/// Keeps every page out of swap, unless locked memory is limited: how much a server needs depends
/// on its clients.
///
/// # Errors
/// [`MemoryLockError`]: memory is unchanged.
pub(crate) fn lock_memory() -> Result<(), MemoryLockError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(MemoryLockError::Refused)?;
    if hard != RLIM_INFINITY && !may_exceed_limits() {
        return Err(MemoryLockError::Limited);
    }
    if hard == RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).map_err(MemoryLockError::Refused)?;
    }
    process::lock_memory().map_err(MemoryLockError::Refused)
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
