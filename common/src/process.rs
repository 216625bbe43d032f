//! The first protections of every program of ours, taken before it reads a secret.

use nix::Result;
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Sets `RLIMIT_CORE` to 0, soft and hard (setrlimit(2)): a core dump would write secrets to disk.
///
/// # Errors
/// The kernel's.
pub fn disable_core_dumps() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

/// Makes the process undumpable (`PR_SET_DUMPABLE`, prctl(2)): no core, no ptrace and no
/// `/proc/PID/mem` for its own user.
///
/// # Errors
/// The kernel's; `EPERM` if the setting did not take hold.
pub fn make_undumpable() -> Result<()> {
    prctl::set_dumpable(false)?;
    if prctl::get_dumpable()? { Err(Errno::EPERM) } else { Ok(()) }
}

/// Makes every new file private (umask 077).
pub fn make_new_files_private() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Keeps every page out of swap, present and future ones (mlockall(2)). Pages are locked when they
/// are first used, so unused address space costs nothing. All of it counts against
/// `RLIMIT_MEMLOCK`, if there is a limit and no `CAP_IPC_LOCK`.
///
/// # Errors
/// The kernel's.
pub fn lock_memory() -> Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
}

/// Raises the soft limit of open files to the hard one. If it cannot be raised, fewer connections
/// are served at once.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_process_dumps_no_core_and_is_not_dumpable() {
        disable_core_dumps().unwrap();
        make_undumpable().unwrap();
        make_new_files_private();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(umask(Mode::from_bits_truncate(0o077)).bits(), 0o077);
    }
}
