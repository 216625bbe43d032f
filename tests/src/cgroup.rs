//! A cgroup of the test's own: the processes that it starts are in it, and end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};

const MOUNT: &str = "/sys/fs/cgroup";
/// How long a killed cgroup may take to be empty.
const DEADLINE: Duration = Duration::from_secs(5);

/// A cgroup in each hierarchy that systemd uses. Dropped, all of its processes are killed.
#[derive(Debug)]
pub struct Cgroup {
    paths: Vec<PathBuf>,
}

impl Cgroup {
    /// Whether cgroups can be made here: in some containers their file system is read-only, for root too.
    #[must_use]
    pub fn can_be_made() -> bool {
        hierarchies().iter().all(|root| access(root, AccessFlags::W_OK).is_ok())
    }

    /// A cgroup of this name.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let paths: Vec<PathBuf> = hierarchies().into_iter().map(|root| root.join(name)).collect();
        for path in &paths {
            fs::create_dir_all(path).expect("root can make a cgroup");
        }
        Self { paths }
    }

    /// `program`, which moves itself here before it becomes the program.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        let script = "program=$1; shift; while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\"; shift; done; shift; \
                      exec \"$program\" \"$@\"";
        shell.arg("-ec").arg(script).arg("sh").arg(program).args(&self.paths).arg("--");
        shell
    }
}

/// One on a machine with cgroups v2 only, two where systemd has a hierarchy of its own beside it.
fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    let of_systemd: Vec<PathBuf> = ["unified", "systemd"]
        .map(|name| mount.join(name))
        .into_iter()
        .filter(|path| path.exists())
        .collect();
    if of_systemd.is_empty() { vec![mount.to_owned()] } else { of_systemd }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A killed nspawn leaves the machine's PID 1 behind: kill by cgroup. Only cgroups v2 can.
        for path in &self.paths {
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.paths.iter().all(|path| remove(path)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and those below it; whether that was possible.
fn remove(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}
