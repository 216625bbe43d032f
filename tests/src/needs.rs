//! The requirements of a test. If one is missing, the test is skipped and says so; under `CI` it fails instead.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cgroup::Cgroup;
use crate::process::say;

/// Whether the running test can continue; if it cannot, its output names what is `missing` and the remedy.
///
/// # Panics
/// If it cannot and `CI` is set.
#[must_use]
pub fn met(found: bool, missing: &str) -> bool {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(found || std::env::var_os("CI").is_none(), "{test} needs {missing}, and CI skips nothing");
    if !found {
        say(&format!("{test}: skipped: needs {missing}"));
    }
    found
}

/// Reports that the running test, or a part of it, is skipped because something is `missing`.
///
/// # Panics
/// If `CI` is set.
pub fn skipped(missing: &str) {
    let _ = met(false, missing);
}

/// Whether this test runs as root.
#[must_use]
pub fn root() -> bool {
    met(nix::unistd::geteuid().is_root(), "root")
}

/// Whether this test can make cgroups.
#[must_use]
pub fn cgroups() -> bool {
    root() && met(Cgroup::can_be_made(), "a /sys/fs/cgroup that root may write")
}

/// Skips the test, with a line of output, unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::needs::root() {
            return;
        }
    };
}

/// Whether a program is there. `package` is what Debian calls it.
#[must_use]
pub fn program(program: &str, package: &str) -> bool {
    program_says(program, "--version", package)
}

/// The same for a program whose version another `argument` asks for.
#[must_use]
pub fn program_says(program: &str, argument: &str, package: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    met(found, &format!("{program} (Debian: apt-get install {package})"))
}

/// The library that moves a program's calendar clock.
#[must_use]
pub fn libfaketime() -> Option<PathBuf> {
    let folders =
        ["x86_64-linux-gnu", "aarch64-linux-gnu", "."].map(|folder| PathBuf::from("/usr/lib").join(folder));
    let library =
        folders.map(|folder| folder.join("faketime/libfaketime.so.1")).into_iter().find(|path| path.exists());
    met(library.is_some(), "libfaketime (Debian: apt-get install libfaketime)").then_some(library)?
}
