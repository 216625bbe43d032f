//! Starting a program as cheaply as the system can, and timing it to its end.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use anyhow::{Result, bail};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitStatus, waitpid};

/// A program with arguments and environment, made ready once: `std::process::Command` would sort and copy a thousand
/// variables at each start.
pub(super) struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    pub(super) fn new<A: AsRef<OsStr>>(arguments: &[A], environment: &[String]) -> Result<Self> {
        let strings = |argument: &A| CString::new(argument.as_ref().as_bytes());
        let arguments = arguments.iter().map(strings).collect::<Result<Vec<_>, _>>()?;
        let environment =
            environment.iter().map(|entry| CString::new(entry.as_str())).collect::<Result<_, _>>()?;
        Ok(Self { path: arguments[0].clone(), arguments, environment })
    }

    /// Microseconds from the start to the end.
    pub(super) fn time(&self) -> Result<f64> {
        let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
        let started = Instant::now();
        let path: &CStr = &self.path;
        let pid = posix_spawn(path, &actions, &attributes, &self.arguments, &self.environment)?;
        let status = waitpid(pid, None)?;
        let elapsed = started.elapsed();
        if status != WaitStatus::Exited(pid, 0) {
            bail!("{} ended with {status:?}", self.path.to_string_lossy());
        }
        Ok(elapsed.as_secs_f64() * 1e6)
    }
}
