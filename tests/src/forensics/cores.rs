//! Core dumps into a folder of the test's: a setting of the whole machine (core(5)), put back afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{succeed, the_machine};
use crate::needs;

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Whether this test can have cores.
#[must_use]
pub fn can_dump() -> bool {
    needs::root()
        && needs::program("gdb", "gdb")
        && needs::met(File::options().write(true).open(PATTERN).is_ok(), "a writable core_pattern")
}

/// While this is there, every process of the machine that dumps core does so here, as `NAME.PID`.
#[derive(Debug)]
pub struct Cores {
    folder: PathBuf,
    before: String,
    _machine: File,
}

impl Cores {
    /// Waits until no other test does the same.
    ///
    /// # Panics
    /// If the setting cannot be changed.
    #[must_use]
    pub fn into(folder: &Path) -> Self {
        let machine = the_machine();
        let before = fs::read_to_string(PATTERN).expect("/proc is mounted");
        allow_for_children();
        set(&format!("{}/%e.%p", folder.display()));
        Self { folder: folder.to_owned(), before, _machine: machine }
    }

    /// The core of a process.
    #[must_use]
    pub fn of(&self, name: &str, pid: u32) -> PathBuf {
        self.folder.join(format!("{name}.{pid}"))
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        set(&self.before);
    }
}

fn set(pattern: &str) {
    fs::write(PATTERN, pattern).expect("root may set where cores go");
}

/// As far as this process's own hard limit goes.
fn allow_for_children() {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_CORE, hard, hard).expect("a soft limit can be raised to the hard one");
}

/// Lets a process dump core of any size, from outside; whether the kernel allows that (`prlimit(1)`: raising a hard limit
/// takes `CAP_SYS_RESOURCE`).
///
/// # Panics
/// If `prlimit(1)` is missing.
#[must_use]
pub fn allow(pid: u32) -> bool {
    let mut prlimit = Command::new("prlimit");
    let output = prlimit.args(["--core=unlimited:unlimited", "--pid"]).arg(pid.to_string()).output();
    output.expect("prlimit(1) is there").status.success()
}

/// Dumps a process that goes on, by gdb's `gcore`, into `folder`.
///
/// # Panics
/// If gdb cannot attach.
#[must_use]
pub fn gcore(pid: u32, folder: &Path) -> PathBuf {
    let prefix = folder.join("gcore");
    succeed(Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()).current_dir(folder));
    folder.join(format!("gcore.{pid}"))
}
