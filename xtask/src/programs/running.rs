//! A child process and its log.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A child process that gets SIGTERM, and at last SIGKILL, when dropped.
#[derive(Debug)]
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Starts `command` in a process group of its own, so that Ctrl-C reaches only the command in the foreground.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let program = command.get_program().to_owned();
        let child = command.process_group(0).spawn();
        child.map(Self).with_context(|| format!("cannot start {}", program.display()))
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("process ids fit pid_t"))
    }

    /// SIGKILL, and its end.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Does nothing if it has exited, because its process id may have been reused.
    fn stop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn log_file(directory: &Path, name: &str) -> Result<std::fs::File> {
    Ok(std::fs::File::create(directory.join(name))?)
}

pub(super) fn log_tail(directory: &Path, name: &str) -> String {
    let log = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
