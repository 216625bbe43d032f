//! mlockall(2), unless it could starve the process.
//!
//! With `MCL_FUTURE` every later mapping counts against `RLIMIT_MEMLOCK`. Under a small limit an
//! allocation would fail in the middle of a launch, and the secrets' own pages would find no room.
//! So it is used only under a large one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use caps::{CapSet, Capability};
use devbox_secrets_common::process::lock_memory;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::Step;

/// The limit with room for the process and its secrets, in bytes.
const ENOUGH: u64 = 64 * 1024 * 1024;
/// The limit with room for the largest bundle of the default `memory.limit`, its successor, the
/// copy for a restart and the prepared launches, in bytes.
const AMPLE: u64 = 320 * 1024 * 1024;

/// The inode of the machine's first user namespace (`USER_NS_INIT_INO`, `linux/nsfs.h`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

pub(super) fn everything() -> Step {
    let limit = match raised_limit() {
        Ok(limit) => limit,
        Err(errno) => return Step::missing(format!("getrlimit(RLIMIT_MEMLOCK): {errno}")),
    };
    if !is_plenty(limit, may_exceed()) {
        let limit = limit / 1024;
        return Step::missing(format!(
            "the limit of locked memory is {limit} KiB: LimitMEMLOCK=64M or CAP_IPC_LOCK"
        ));
    }
    Step::of(lock_memory(), "mlockall")
}

/// Whether `CAP_IPC_LOCK` has to stay, because locked memory could run out without it.
pub(super) fn needs_capability() -> bool {
    may_exceed() && raised_limit().is_ok_and(|limit| limit < AMPLE)
}

/// The limit, raised as far as it can be without a privilege; `RLIM_INFINITY` if there is none.
fn raised_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    Ok(if raised.is_ok() { hard } else { soft })
}

/// The capability counts in the machine's own user namespace only, because the kernel checks it
/// there (`can_do_mlock`).
fn may_exceed() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == FIRST_USER_NAMESPACE)
        && caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false)
}

fn is_plenty(limit: u64, may_exceed: bool) -> bool {
    may_exceed || limit == RLIM_INFINITY || limit >= ENOUGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_locked_only_where_that_cannot_starve_the_process() {
        assert!(!is_plenty(8 << 20, false));
        assert!(is_plenty(8 << 20, true));
        assert!(is_plenty(ENOUGH, false));
        assert!(is_plenty(RLIM_INFINITY, false));
    }
}
