//! Rigs that look for a canary where the operating system leaves things behind.
//!
//! - [`trace`]: every system call of a program, by strace(1);
//! - [`reader`]: another process that tries every way into a process;
//! - [`cores`], [`swap`]: settings of the whole machine, put back afterwards, and one test at a time;
//! - [`guest`], [`ram`], [`snapshot`]: a virtual machine whose memory is a file here, what is in it, and copies of it.

pub mod cores;
pub mod guest;
mod initramfs;
mod kernel;
pub mod ram;
pub mod reader;
pub mod snapshot;
pub mod swap;
pub mod trace;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use crate::programs;

/// Held by whoever changes a setting of the whole machine. Other executables' tests wait as well.
///
/// # Panics
/// If `target/` is not writable.
#[must_use]
pub fn the_machine() -> File {
    lock(&programs::target_directory().join("machine-wide.lock"))
}

/// Waits for the lock that this file stands for.
fn lock(path: &Path) -> File {
    let file = File::create(path).expect("target/ is writable");
    file.lock().expect("a lock can be waited for");
    file
}

/// Runs a program to its end and success.
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
    output
}
