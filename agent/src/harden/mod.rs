//! Closes the process: to others, before it reads a secret; to misuse of its own rights, before it
//! serves.
//!
//! In this order, each step as early as it can be:
//! 1. [`process()`], first of all: limits, no core dumps, not dumpable (no `ptrace`, no `/proc/PID/mem` for its own user), memory
//!    that is not swapped, files that others cannot read;
//! 2. sockets are bound, the configuration and the credentials read;
//! 3. [`Hardening::drop_privileges`]: capabilities, and any way to new ones;
//! 4. [`Hardening::confine`]: Landlock and seccomp.
//!
//! Capabilities and Landlock are each thread's own, and inherited by those that it starts. So all
//! threads start after the last step, except the one that examines peers' programs: it starts
//! before, because no process in a Landlock domain can see the program of one outside (landlock(7),
//! "Ptrace restrictions").
//!
//! Each step reports its result for `status`. A devbox where one is impossible is still served,
//! visibly, unless the mode is [`Mode::Strict`].

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
pub(crate) use step::Step;

/// The setting `hardening.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The daemon does not start without every protection.
    Strict,
    /// Missing protections are logged.
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

/// A protection is missing under [`Mode::Strict`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("hardening is strict, and not all of it can be had (mode = \"best-effort\" would only warn): {}", .0.join("; "))]
pub struct Missing(Vec<String>);

/// The result of all steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// `RLIMIT_CORE` is 0, hard and soft (setrlimit(2)).
    pub no_core_dump: Step,
    /// The process is not dumpable (`PR_SET_DUMPABLE`, prctl(2)): no core, no ptrace, no `/proc/PID/mem` for its user.
    pub not_dumpable: Step,
    /// All of the process stays in RAM (mlockall(2)).
    pub memory_locked: Step,
    /// No page of the process reaches a swap device.
    pub swap: Step,
    /// Secrets are in pages that the kernel itself cannot read (memfd_secret(2)).
    pub secret_pages: Step,
    /// No unused capability is left (capabilities(7)).
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
    // The umask: a file that is created by mistake is readable by the daemon's user only.
    process::make_new_files_private();
    // This early, because a confined process can only read its limits.
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

/// The limit of descriptors is too low for launches.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the limit of file descriptors is {0}, and the daemon needs at least {LEAST_DESCRIPTORS}: raise RLIMIT_NOFILE (systemd: \
     LimitNOFILE={LEAST_DESCRIPTORS}; a shell: ulimit -n {LEAST_DESCRIPTORS})"
)]
pub struct FewDescriptors(u64);

/// Checks the limit, after [`process()`] has raised it as far as possible.
///
/// # Errors
/// [`FewDescriptors`].
pub(crate) fn enough_descriptors() -> Result<(), FewDescriptors> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < LEAST_DESCRIPTORS => Err(FewDescriptors(limit)),
        _ => Ok(()),
    }
}

impl Hardening {
    /// Drops the capabilities of this thread and every way to new ones, irrevocably. Call when
    /// sockets are bound and credentials are read. `sees_programs` leaves `CAP_SYS_PTRACE`, if it
    /// is there, until [`Self::confine`], for a thread that is started in between.
    #[must_use]
    pub fn drop_privileges(self, sees_programs: bool) -> Self {
        let capabilities = capabilities::drop_unused(sees_programs);
        let no_new_privileges = Step::of(prctl::set_no_new_privs(), "prctl(PR_SET_NO_NEW_PRIVS)");
        Self { capabilities, no_new_privileges, ..self }
    }

    /// Confines this thread, and every one that it starts, to the files and ports it needs, and all
    /// threads to the system calls that the daemon makes, irrevocably. Call when the log is open.
    ///
    /// # Errors
    /// [`Missing`], under [`Mode::Strict`].
    pub fn confine(self, reach: &Reach<'_>, memory: &SecretMemory, mode: Mode) -> Result<Self, Missing> {
        prepare_random_numbers();
        let secret_pages = secret_pages(memory);
        let capabilities = capabilities::drop_unused(false);
        // Landlock before seccomp, whose filter forbids Landlock's calls.
        let landlock = landlock::restrict(reach);
        let seccomp = seccomp::restrict();
        let hardening = Self { secret_pages, capabilities, landlock, seccomp, ..self };
        let missing: Vec<String> =
            hardening.missing().map(|(name, reason)| format!("{name}: {reason}")).collect();
        if mode == Mode::Strict && !missing.is_empty() { Err(Missing(missing)) } else { Ok(hardening) }
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = (&'static str, &Step)> {
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

    pub(crate) fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.steps().filter_map(|(name, step)| Some((name, step.reason.as_deref()?)))
    }
}

/// The library looks once for a device that reports snapshots (`/dev/sysgenid`), so it has to look
/// before the process is confined.
fn prepare_random_numbers() {
    // A failure shows again when the numbers are needed.
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
    fn the_unit_allows_more_descriptors_than_the_daemon_needs() {
        let unit = include_str!("../../../systemd/devbox-secretsd.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
        assert!(limit.parse::<u64>().unwrap() >= LEAST_DESCRIPTORS);
    }

    #[test]
    fn strict_names_everything_that_is_missing() {
        let missing = Missing(vec!["landlock: no kernel".to_owned(), "swap: on".to_owned()]);
        let text = missing.to_string();
        assert!(text.contains("landlock: no kernel; swap: on"), "{text}");
    }
}
