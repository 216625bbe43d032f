//! Closes the process: what others can see of it, before it reads a secret; what it can do itself, before it serves.
//!
//! In this order, each step as early as it can be:
//! 1. [`process`], first of all: limits, no core dumps, not dumpable (no `ptrace`, no `/proc/PID/mem` for its own user), memory
//!    that is not swapped, files that others cannot read;
//! 2. sockets are bound, the configuration and the credentials read;
//! 3. [`Hardening::drop_privileges`]: capabilities, and any way to new ones;
//! 4. [`Hardening::confine`]: Landlock and seccomp.
//!
//! Of these, capabilities and Landlock are each thread's own, and inherited by those that it starts. So all threads start
//! after the last step, but for one: who looks at peers' programs starts before it, for no process in a Landlock domain can
//! see the program of one outside (landlock(7), "Ptrace restrictions").
//!
//! Each step says what it achieved, for `status`: a devbox where one is impossible is still served, visibly, unless
//! [`Mode::Strict`] is asked for.

mod capabilities;
mod landlock;
mod lock;
mod seccomp;
mod step;
mod swap;

use std::fmt;

use devbox_secrets_common::process;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys::{Backing, SecretMemory};
use crate::telemetry::chain;

pub use landlock::Reach;
pub use step::Step;

/// The setting `hardening.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The daemon does not start with anything missing.
    Strict,
    /// What is missing is told.
    #[default]
    BestEffort,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::BestEffort => "best-effort",
        })
    }
}

/// Something is missing under [`Mode::Strict`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("hardening is strict, and not all of it can be had (mode = \"best-effort\" would only warn): {}", .0.join("; "))]
pub struct Missing(Vec<String>);

/// What the whole hardening achieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// `RLIMIT_CORE` is 0, hard and soft (setrlimit(2)).
    pub no_core_dump: Step,
    /// The process is not dumpable (`PR_SET_DUMPABLE`, prctl(2)): no core, no ptrace, no `/proc/PID/mem` for its user.
    pub not_dumpable: Step,
    /// All of the process stays in RAM (mlockall(2)).
    pub memory_locked: Step,
    /// None of the process reaches a swap device.
    pub swap: Step,
    /// Secrets are in pages that the kernel itself cannot read (memfd_secret(2)).
    pub secret_pages: Step,
    /// None is left that is not used (capabilities(7)).
    pub capabilities: Step,
    /// No execve(2) gains a privilege (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    pub no_new_privileges: Step,
    /// Only the files and ports that are used can be reached (landlock(7)).
    pub landlock: Step,
    /// Only the system calls that are used can be made (seccomp(2)).
    pub seccomp: Step,
}

/// Closes the process to others. Call first of all, while the process has one thread and has read nothing.
#[must_use]
pub fn process() -> Hardening {
    let no_core_dump = Step::of(process::disable_core_dumps(), "setrlimit(RLIMIT_CORE)");
    let not_dumpable = Step::of(process::make_undumpable(), "prctl(PR_SET_DUMPABLE)");
    process::make_new_files_private();
    // As early as this, because a confined process can only read its limits.
    process::raise_open_files();
    let memory_locked = lock::everything();
    let later = || Step::missing("not taken yet");
    Hardening {
        no_core_dump,
        not_dumpable,
        swap: swap::look(&memory_locked),
        memory_locked,
        secret_pages: later(),
        capabilities: later(),
        no_new_privileges: later(),
        landlock: later(),
        seccomp: later(),
    }
}

/// The least `RLIMIT_NOFILE` that leaves room for launches: 64 descriptors for sockets, logs, the control plane and prepared
/// launches, and three for each of 64 launches at once.
const LEAST_DESCRIPTORS: u64 = 256;

/// The limit of descriptors leaves no room for launches.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the limit of file descriptors is {0}, and the daemon needs at least {LEAST_DESCRIPTORS}: raise RLIMIT_NOFILE (systemd: \
     LimitNOFILE={LEAST_DESCRIPTORS}; a shell: ulimit -n {LEAST_DESCRIPTORS})"
)]
pub struct FewDescriptors(u64);

/// Checks the limit, which [`process`] has raised as far as it goes.
///
/// # Errors
/// [`FewDescriptors`].
pub fn enough_descriptors() -> Result<(), FewDescriptors> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < LEAST_DESCRIPTORS => Err(FewDescriptors(limit)),
        _ => Ok(()),
    }
}

impl Hardening {
    /// Gives up the capabilities of this thread, and every way to new ones. For ever. Call when sockets are bound and
    /// credentials are read. `sees_programs` leaves `CAP_SYS_PTRACE`, if it is there, until [`Self::confine`]: for a thread
    /// that is started between the two.
    #[must_use]
    pub fn drop_privileges(self, sees_programs: bool) -> Self {
        let capabilities = capabilities::drop_unused(sees_programs);
        let no_new_privileges = Step::of(prctl::set_no_new_privs(), "prctl(PR_SET_NO_NEW_PRIVS)");
        Self { capabilities, no_new_privileges, ..self }
    }

    /// Confines this thread, and every one that it starts, to what it needs to serve; all threads to the system calls that
    /// the daemon makes. For ever. Call when the log is open.
    ///
    /// # Errors
    /// [`Missing`], under [`Mode::Strict`].
    pub fn confine(self, reach: &Reach<'_>, memory: &SecretMemory, mode: Mode) -> Result<Self, Missing> {
        prepare_random_numbers();
        let secret_pages = secret_pages(memory);
        let capabilities = capabilities::drop_unused(false);
        let landlock = landlock::restrict(reach);
        let seccomp = seccomp::restrict();
        let hardening = Self { secret_pages, capabilities, landlock, seccomp, ..self };
        let missing: Vec<String> =
            hardening.missing().map(|(name, reason)| format!("{name}: {reason}")).collect();
        if mode == Mode::Strict && !missing.is_empty() { Err(Missing(missing)) } else { Ok(hardening) }
    }

    /// Every step, in the order in which it was taken, with the name that people read.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, &Step)> {
        [
            ("no core dump", &self.no_core_dump),
            ("not dumpable", &self.not_dumpable),
            ("all locked", &self.memory_locked),
            ("swap", &self.swap),
            ("secret pages", &self.secret_pages),
            ("capabilities", &self.capabilities),
            ("no new privs", &self.no_new_privileges),
            ("landlock", &self.landlock),
            ("seccomp", &self.seccomp),
        ]
        .into_iter()
    }

    /// What was not achieved, and why.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.steps().filter_map(|(name, step)| Some((name, step.reason.as_deref()?)))
    }
}

/// The library looks once for a device that tells of snapshots (`/dev/sysgenid`): let it, as long as it can.
fn prepare_random_numbers() {
    // A failure shows again where the numbers are needed.
    let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
}

fn secret_pages(memory: &SecretMemory) -> Step {
    match (memory.backing(), memory.fallback_reason()) {
        (Backing::MemfdSecret, _) => Step::achieved_by("memfd_secret"),
        (Backing::Mlock, reason) => {
            let reason = reason.map(|reason| format!(": {}", chain(reason))).unwrap_or_default();
            let gaps = memory.gaps();
            let without =
                if gaps.is_empty() { String::new() } else { format!("; without {}", gaps.join(", ")) };
            Step::missing(format!("mlock instead of memfd_secret{reason}{without}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_names_everything_that_is_missing() {
        let missing = Missing(vec!["landlock: no kernel".to_owned(), "swap: on".to_owned()]);
        let text = missing.to_string();
        assert!(text.contains("landlock: no kernel; swap: on"), "{text}");
    }
}
