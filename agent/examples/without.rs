//! Becomes another program for which the kernel refuses some system calls, as the sandbox of a container does. For tests only;
//! no part of any package.
//!
//! `without CALLS PROGRAM [ARGUMENT]...`; `CALLS` are numbers, with commas between them. Each is refused with `EPERM`.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [calls, program, rest @ ..] = &arguments[..] else { panic!("see the head of this file") };
    let rules = calls.split(',').map(|call| (call.parse().unwrap(), vec![])).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let machine = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, machine).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    Err(Command::new(program).args(rest).exec())
}
