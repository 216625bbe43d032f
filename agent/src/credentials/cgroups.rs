//! In which unit a process is, as the kernel's control groups have it (cgroups(7)).
//!
//! Read from the cgroup file system and not from `/proc/PID/cgroup`: so other users' processes can be hidden from the
//! daemon (`ProtectProc=invisible`), and it still knows its peers.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::unit::UnitName;

/// Where the cgroup file systems are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Slices and subgroups are at most this deep: bounds the search whatever lies there.
const MAX_DEPTH: usize = 16;

/// The hierarchy in which systemd keeps units.
#[derive(Debug, Clone)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// This machine's: the unified hierarchy, or systemd's own where there is none.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let mount = Path::new(MOUNT);
        let unified = mount.join("cgroup.controllers").exists();
        Self { root: if unified { mount.to_owned() } else { mount.join("systemd") } }
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether process `pid` is in the own cgroup of the system manager's unit `unit`, or in one below it.
    ///
    /// Units live in slices (`/system.slice/app.service`); what a unit makes below its own cgroup, a user's manager with
    /// units of the same names among it, is that unit's.
    #[must_use]
    pub fn has(&self, unit: &UnitName, pid: i32) -> bool {
        pid > 0 && units_named(&self.root, unit, MAX_DEPTH).iter().any(|cgroup| holds(cgroup, pid, MAX_DEPTH))
    }
}

/// The cgroups of `unit` under `slice`. One, unless something imitates systemd's tree: only root can.
fn units_named(slice: &Path, unit: &UnitName, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (name, path) in subgroups(slice) {
        if unescaped(&name) == unit.as_str() {
            found.push(path);
        } else if name.ends_with(".slice") && depth > 0 {
            found.extend(units_named(&path, unit, depth - 1));
        }
    }
    found
}

fn holds(cgroup: &Path, pid: i32, depth: usize) -> bool {
    lists(cgroup, pid).unwrap_or(false)
        || depth > 0 && subgroups(cgroup).any(|(_, path)| holds(&path, pid, depth - 1))
}

fn lists(cgroup: &Path, pid: i32) -> io::Result<bool> {
    let processes = fs::File::open(cgroup.join("cgroup.procs"))?;
    let wanted = pid.to_string();
    for line in BufReader::new(processes).lines() {
        if line? == wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn subgroups(cgroup: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let is_cgroup = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name().into_string().ok()?;
        is_cgroup.then(|| (name, entry.path()))
    })
}

/// systemd puts `_` before a name that the kernel could take for one of its own files (`cpu.service`).
fn unescaped(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of `(cgroup, processes)`.
    fn tree(cgroups: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        for (path, processes) in cgroups {
            fs::create_dir_all(root.path().join(path)).unwrap();
            fs::write(root.path().join(path).join("cgroup.procs"), processes).unwrap();
        }
        let cgroups = Cgroups::at(root.path());
        (root, cgroups)
    }

    fn unit(name: &str) -> UnitName {
        UnitName::new(name).unwrap()
    }

    #[test]
    fn a_process_is_in_its_unit_in_whatever_slice_and_in_no_other() {
        let (_root, cgroups) = tree(&[
            ("system.slice/app.service", "11\n12\n"),
            ("system.slice/system-worker.slice/worker@1.service", "21\n"),
            ("system.slice/_cpu.service", "31\n"),
            ("init.scope", "1\n"),
        ]);
        assert!(cgroups.has(&unit("app.service"), 12));
        assert!(cgroups.has(&unit("worker@1.service"), 21));
        assert!(cgroups.has(&unit("cpu.service"), 31));
        for (name, pid) in
            [("app.service", 21), ("app.service", 1), ("worker@2.service", 21), ("none.service", 11)]
        {
            assert!(!cgroups.has(&unit(name), pid), "{name} {pid}");
        }
    }

    #[test]
    fn part_of_a_number_is_another_process() {
        let (_root, cgroups) = tree(&[("system.slice/app.service", "112\n")]);
        for pid in [11, 12, 1, 1122, 0, -1] {
            assert!(!cgroups.has(&unit("app.service"), pid), "{pid}");
        }
    }

    #[test]
    fn what_a_unit_makes_below_its_cgroup_is_that_units() {
        let user = "user.slice/user-1000.slice/user@1000.service";
        let (_root, cgroups) = tree(&[
            (user, ""),
            (&format!("{user}/app.slice/app.service"), "66\n"),
            ("system.slice/app.service/.control", "77\n"),
        ]);
        assert!(!cgroups.has(&unit("app.service"), 66), "a user's unit is not the system's of the same name");
        assert!(cgroups.has(&unit("user@1000.service"), 66));
        assert!(cgroups.has(&unit("app.service"), 77));
    }
}
