//! The systems that a machine can run: this machine's own, and a Debian 13 that is installed once and kept.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::say;
use crate::{needs, programs};

/// Debian's own mirror, if apt names none.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian/";
const SUITE: &str = "trixie";
/// The scripts of the tests need these, besides what every Debian has.
const PACKAGES: &str = "--include=systemd,dbus,procps,python3,curl";

/// Where a machine's `/usr` comes from, and its systemd with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// This machine's own: systemd 252 on Debian 12.
    ThisMachine,
    /// Debian 13 with systemd 257, installed by debootstrap(8) below `target/machine`.
    Debian13,
}

impl System {
    /// The folder that has its `usr` and `etc`. Unless there is one, the test logs what it needs, and fails under `CI`.
    pub(super) fn folder(self) -> Option<PathBuf> {
        match self {
            Self::ThisMachine => Some(PathBuf::from("/")),
            Self::Debian13 => debian_13(),
        }
    }
}

fn debian_13() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match INSTALLED.get_or_init(install) {
        Ok(folder) => Some(folder.clone()),
        Err(reason) => {
            let missing =
                format!("a Debian 13 by debootstrap (Debian: apt-get install debootstrap): {reason}");
            needs::met(false, &missing).then(PathBuf::new)
        }
    }
}

/// Returns the installed system. Test programs that run at the same time wait for the first of them to install it.
fn install() -> Result<PathBuf, String> {
    let cache = programs::target_directory().join("machine");
    fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    let lock = File::create(cache.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let folder = cache.join(stamp());
    if !folder.is_dir() {
        remove_all_systems(&cache)?;
        say("Installing Debian 13 for the tests under its systemd: about a minute, once");
        let partial = cache.join("partial");
        debootstrap(&partial)?;
        fs::rename(&partial, &folder).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// The folder's name, which changes with the packages in it.
fn stamp() -> String {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES).hash(&mut hasher);
    format!("{SUITE}-{:016x}", hasher.finish())
}

/// Removes what an interrupted installation or an older list of packages left.
fn remove_all_systems(cache: &Path) -> Result<(), String> {
    let entries = fs::read_dir(cache).map_err(|error| error.to_string())?;
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    for folder in folders {
        fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn debootstrap(folder: &Path) -> Result<(), String> {
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", PACKAGES, SUITE]).arg(folder).arg(mirror()).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("debootstrap does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let last: Vec<&str> = printed.lines().rev().take(3).collect();
    Err(format!("debootstrap ended with {}: {}", output.status, last.join("; ")))
}

/// The mirror that apt uses already: it is reachable from here.
fn mirror() -> String {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)"]).stdin(Stdio::null());
    let printed = apt.output().map(|output| output.stdout).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let found = printed.lines().find(|line| line.trim_end_matches('/').ends_with("/debian"));
    found.unwrap_or(DEFAULT_MIRROR).to_owned()
}
