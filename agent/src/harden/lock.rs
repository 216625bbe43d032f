//! mlockall(2), where it cannot starve the process.
//!
//! With `MCL_FUTURE` every later mapping counts against `RLIMIT_MEMLOCK`: under a small limit an allocation would fail in
//! the middle of a launch, and the secrets' own pages would find no room. So it is taken only where there is plenty.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{Step, has_capability};

/// The limit from which on the process and its secrets have room, in bytes.
const ENOUGH: u64 = 64 * 1024 * 1024;
/// Number of `CAP_IPC_LOCK` in capabilities(7).
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn everything() -> Step {
    let (limit, _) = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok(limits) => limits,
        Err(errno) => return Step::skipped(format!("getrlimit(RLIMIT_MEMLOCK): {errno}")),
    };
    if !is_plenty(limit, has_capability(CAP_IPC_LOCK)) {
        return Step::skipped(too_small(limit));
    }
    // Pages are locked when they are first used: address space that nobody touches costs nothing.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    Step::of(mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault), "mlockall")
}

fn is_plenty(limit: u64, may_exceed: bool) -> bool {
    may_exceed || limit == RLIM_INFINITY || limit >= ENOUGH
}

fn too_small(limit: u64) -> String {
    format!("the limit of locked memory is {} KiB: LimitMEMLOCK=64M or CAP_IPC_LOCK", limit / 1024)
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
