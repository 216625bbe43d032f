//! A machine with a real systemd as PID 1: a container over the `/usr` of a [`System`], with the built programs and the
//! repository's unit files installed, and nothing else on it.
//!
//! Boots in about a second (systemd-nspawn(1)), runs one script as root to its end, and is gone, whatever the script left
//! running. Needs root and Debian's `systemd-container` and `debootstrap`; a test without them logs that it is skipped.

mod files;
mod system;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::needs;
use crate::process::{self, say};

pub use system::System;

/// From boot to end, on a loaded machine. A script has three minutes.
const DEADLINE: Duration = Duration::from_secs(240);

/// Bash functions that every script begins with.
const PRELUDE: &str = include_str!("../data/machine/prelude.sh");

/// Makes each of these functions, which take a [`Machine`], a test on every [`System`]: `this_machine::NAME` and
/// `debian_13::NAME`.
#[macro_export]
macro_rules! on_every_system {
    ($($test:ident),+ $(,)?) => {
        mod this_machine {
            $(#[tokio::test]
            async fn $test() {
                let Some(machine) = $crate::machine::Machine::with($crate::machine::System::ThisMachine) else { return };
                super::$test(machine).await;
            })+
        }
        mod debian_13 {
            $(#[tokio::test]
            async fn $test() {
                let Some(machine) = $crate::machine::Machine::with($crate::machine::System::Debian13) else { return };
                super::$test(machine).await;
            })+
        }
    };
}

/// A machine that has not booted yet.
#[derive(Debug)]
pub struct Machine {
    root: TempDir,
    /// The folder of the system, whose `/usr` it has.
    system: PathBuf,
    /// Files installed over that `/usr`.
    usr: TempDir,
}

impl Machine {
    /// A machine with the programs and units of this project, none of them started. `None` if it cannot be booted here:
    /// the running test has logged why.
    ///
    /// # Panics
    /// If its files cannot be written; under `CI` also if it cannot be booted.
    #[must_use]
    pub fn with(system: System) -> Option<Self> {
        if !needs::root() || !needs::program("systemd-nspawn", "systemd-container") {
            return None;
        }
        let machine = Self {
            root: crate::world::directory(),
            system: system.folder()?,
            usr: crate::world::directory(),
        };
        files::install_system(machine.root.path(), &machine.system);
        files::install_project(machine.usr.path());
        Some(machine)
    }

    /// The same with another file.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(self, path: &str, text: &str) -> Self {
        files::write(self.root.path(), path, text);
        self
    }

    /// Boots, runs `script` by bash after the functions of `tests/data/machine/prelude.sh`, and waits for the machine's end.
    ///
    /// # Panics
    /// If the machine does not boot, or the script does not end within the deadline.
    pub async fn run(self, script: &str) -> Ended {
        let machine = self.file("/machine/script", &format!("{PRELUDE}\n{script}"));
        let name = machine.root.path().file_name().expect("a temporary directory has a name").to_owned();
        let cgroup = Cgroup::new(&name.to_string_lossy());
        let console = process::run_within(DEADLINE, machine.nspawn(&cgroup), b"").await;
        let ended = Ended { status: console.status, console: console.stdout, root: machine.root };
        drop(cgroup);
        ended
    }

    fn nspawn(&self, cgroup: &Cgroup) -> Command {
        let mut nspawn = cgroup.command("systemd-nspawn");
        let (lower, upper) = (self.system.join("usr"), self.usr.path());
        let usr = format!("--overlay-ro={}:{}:/usr", lower.display(), upper.display());
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--capability=all"]);
        nspawn.arg(usr).arg("--directory").arg(self.root.path()).arg("--boot");
        // nspawn's own filter knows neither memfd_secret nor Landlock; units are tested under their own filters.
        nspawn.env("SYSTEMD_SECCOMP", "0").env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        nspawn
    }
}

/// A machine that has run its script. Its files are still there.
#[derive(Debug)]
pub struct Ended {
    /// The script's exit status.
    pub status: i32,
    console: Vec<u8>,
    root: TempDir,
}

impl Ended {
    /// The same, once the script has succeeded.
    ///
    /// # Panics
    /// If it failed; prints what it and the machine's journal said.
    #[must_use]
    pub fn success(self) -> Self {
        if self.status != 0 {
            // A machine that did not boot has said why on its console; one that did has a journal.
            let console = String::from_utf8_lossy(&self.console);
            let said = if self.output().is_empty() { console.into_owned() } else { self.text("log") };
            say(&format!("--- machine ---\n{said}\n--- script ---\n{}", self.output()));
        }
        assert_eq!(self.status, 0, "the script failed");
        self
    }

    /// The output of the script.
    #[must_use]
    pub fn output(&self) -> String {
        self.text("output")
    }

    /// A file that the script left in `/machine`; empty if there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.bytes(name)).into_owned()
    }

    /// The same, as bytes.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.path().join("machine").join(name)).unwrap_or_default()
    }

    /// A number that the script printed as `name=number`.
    ///
    /// # Panics
    /// If it printed none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let prefix = format!("{name}=");
        let found = self.output().lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok());
        found.unwrap_or_else(|| panic!("the script printed no {prefix}: {}", self.output()))
    }
}
