//! Closes the ways out of this process before it reads its first secret: core dumps, `ptrace` and `/proc/PID/mem` by the
//! same user, swap, files that others can read.
//!
//! Each step says what it achieved, for `status`: a devbox where one is impossible is still served, visibly.

mod lock;

use std::fs;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};

/// What one step achieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Whether the protection is in place.
    pub achieved: bool,
    /// Why not, and what would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Step {
    fn achieved() -> Self {
        Self { achieved: true, reason: None }
    }

    fn skipped(reason: String) -> Self {
        Self { achieved: false, reason: Some(reason) }
    }

    fn of(result: nix::Result<()>, what: &str) -> Self {
        match result {
            Ok(()) => Self::achieved(),
            Err(errno) => Self::skipped(format!("{what}: {errno}")),
        }
    }
}

/// What the whole hardening achieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// `RLIMIT_CORE` is 0, hard and soft (setrlimit(2)).
    pub no_core_dump: Step,
    /// The process is not dumpable (`PR_SET_DUMPABLE`, prctl(2)): no core, no ptrace, no `/proc/PID/mem` for its user.
    pub not_dumpable: Step,
    /// All of the process stays in RAM (mlockall(2)).
    pub memory_locked: Step,
}

/// Takes every step, in this order. Call first of all, while the process has one thread and has read nothing.
#[must_use]
pub fn process() -> Hardening {
    let no_core_dump = Step::of(setrlimit(Resource::RLIMIT_CORE, 0, 0), "setrlimit(RLIMIT_CORE)");
    let not_dumpable = Step::of(undumpable(), "prctl(PR_SET_DUMPABLE)");
    umask(Mode::from_bits_truncate(0o077));
    Hardening { no_core_dump, not_dumpable, memory_locked: lock::everything() }
}

/// Asks the kernel whether it took hold.
fn undumpable() -> nix::Result<()> {
    prctl::set_dumpable(false)?;
    if prctl::get_dumpable()? { Err(Errno::EPERM) } else { Ok(()) }
}

/// Whether the effective capabilities of this process hold number `capability` (capabilities(7)).
fn has_capability(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_capabilities(&status) >> capability & 1 == 1
}

/// The `CapEff` line of proc_pid_status(5); none where it is missing.
fn effective_capabilities(status: &str) -> u64 {
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    field.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_proc_status() {
        let status = "Name:\tx\nCapPrm:\tffff\nCapEff:\t0000000000004000\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), 1 << 14);
        assert_eq!(effective_capabilities("Name:\tx\n"), 0);
        assert_eq!(effective_capabilities("CapEff:\tnonsense\n"), 0);
    }
}
