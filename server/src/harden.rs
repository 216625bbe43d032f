//! What the process gives up before it reads its first secret: core dumps, being traced by its own user, and files that
//! others could read.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
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

/// Switches off core dumps and tracing by the same user, and makes every new file private (umask 077).
///
/// # Errors
/// [`HardenError`]: start nothing after it.
pub fn harden() -> Result<(), HardenError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(HardenError::CoreDumps)?;
    prctl::set_dumpable(false).map_err(HardenError::Dumpable)?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
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
