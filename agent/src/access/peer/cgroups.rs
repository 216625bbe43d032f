//! The systemd unit of a process, from the kernel's control groups (cgroups(7)).
//!
//! It is read from the cgroup file system and not from `/proc/PID/cgroup`, so that it works with
//! other users' processes hidden from the daemon (`ProtectProc=invisible`).

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::unit::UnitName;

const MOUNT: &str = "/sys/fs/cgroup";
/// Deepest slices and subgroups that are searched. A user can nest cgroups without end.
const MAX_DEPTH: usize = 16;
/// Most lists of processes that one question reads; a process in later ones is in no unit.
const MAX_LISTS: usize = 4_096;

/// The hierarchy in which systemd keeps units.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// This machine's hierarchy: the unified one, or systemd's own on cgroup v1.
    #[must_use]
    pub(crate) fn of_this_machine() -> Self {
        let mount = Path::new(MOUNT);
        let unified = mount.join("cgroup.controllers").exists();
        Self { root: if unified { mount.to_owned() } else { mount.join("systemd") } }
    }

    /// The unit of the system manager whose cgroup, or one below it, holds process `pid`; `None` if
    /// no unit that `wanted` accepts does.
    ///
    /// Units live in slices (`/system.slice/app.service`), and the outermost unit counts: cgroups
    /// below a unit's are that unit's, even if a user's manager gives them the name of a system
    /// unit. To ask for few units is cheap; to ask for all reads the list of processes of each.
    #[must_use]
    pub(crate) fn unit_of(&self, pid: i32, wanted: impl Fn(&UnitName) -> bool) -> Option<UnitName> {
        if pid <= 0 {
            return None;
        }
        let mut found = Vec::new();
        units(&self.root, &wanted, MAX_DEPTH, &mut found);
        let mut budget = MAX_LISTS;
        found.into_iter().find(|(_, cgroup)| holds(cgroup, pid, MAX_DEPTH, &mut budget)).map(|(unit, _)| unit)
    }

    /// Whether the cgroup of the system manager's unit `unit`, or one below it, holds process
    /// `pid`.
    #[must_use]
    pub(crate) fn has(&self, unit: &UnitName, pid: i32) -> bool {
        self.unit_of(pid, |found| found == unit).is_some()
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

fn units(
    slice: &Path,
    wanted: &impl Fn(&UnitName) -> bool,
    depth: usize,
    found: &mut Vec<(UnitName, PathBuf)>,
) {
    for (name, path) in subgroups(slice) {
        if name.ends_with(".slice") {
            if depth > 0 {
                units(&path, wanted, depth - 1, found);
            }
        } else if let Ok(unit) = UnitName::new(unescaped(&name))
            && wanted(&unit)
        {
            found.push((unit, path));
        }
    }
}

/// `budget` bounds the lists that are read, because a unit's owner can make any number of cgroups
/// below it.
fn holds(cgroup: &Path, pid: i32, depth: usize, budget: &mut usize) -> bool {
    let Some(left) = budget.checked_sub(1) else { return false };
    *budget = left;
    lists(cgroup, pid).unwrap_or(false)
        || depth > 0 && subgroups(cgroup).any(|(_, path)| holds(&path, pid, depth - 1, budget))
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
    use devbox_secrets_tests::needs::skipped;

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
    fn a_process_is_in_its_unit_in_any_slice_and_in_no_other() {
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
    fn a_pid_is_compared_whole() {
        let (_root, cgroups) = tree(&[("system.slice/app.service", "112\n")]);
        for pid in [11, 12, 1, 1122, 0, -1] {
            assert!(!cgroups.has(&unit("app.service"), pid), "{pid}");
        }
    }

    #[test]
    fn cgroups_below_a_unit_are_that_units() {
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

    #[test]
    fn the_unit_of_a_process_is_the_outermost_one_that_is_wanted() {
        let (_root, cgroups) = tree(&[
            ("system.slice/docker-1.scope/system.slice/app.service", "11\n"),
            ("system.slice/app.service", "12\n"),
            ("user.slice/user-1.slice/session-2.scope", "13\n"),
            ("lone", "14\n"),
        ]);
        let any = |pid| cgroups.unit_of(pid, |_| true).map(|unit| unit.to_string());
        assert_eq!(
            any(11).as_deref(),
            Some("docker-1.scope"),
            "a user that may make cgroups must not be able to choose a unit's name"
        );
        assert_eq!(any(12).as_deref(), Some("app.service"));
        assert_eq!(any(13).as_deref(), Some("session-2.scope"));
        assert_eq!((any(14), any(0), any(-1)), (None, None, None));
        assert_eq!(cgroups.unit_of(12, |unit| unit.as_str() == "other.service"), None);
    }

    #[test]
    fn a_unit_with_endless_cgroups_is_searched_in_bounded_time_only() {
        let (root, cgroups) = tree(&[("system.slice/app.service/deep", "7\n")]);
        let app = root.path().join("system.slice/app.service");
        let deep = Path::new("deep");
        assert!(holds(&app, 7, MAX_DEPTH, &mut 2) && !holds(&app, 7, MAX_DEPTH, &mut 1));
        assert!(holds(&app.join(deep), 7, 0, &mut 1) && !holds(&app, 7, 0, &mut 2));
        assert!(cgroups.has(&unit("app.service"), 7));
    }

    #[test]
    fn a_process_in_a_cgroup_of_this_machine_is_in_its_unit() {
        let cgroups = Cgroups::of_this_machine();
        let slice = cgroups.root.join(format!("devboxtest{}.slice", std::process::id()));
        let cgroup = slice.join("devbox-test.service");
        if let Err(error) = fs::create_dir_all(&cgroup) {
            return skipped(&format!("a cgroup of its own: {error}"));
        }
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let before = cgroups.has(&unit("devbox-test.service"), pid);
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let found = cgroups.unit_of(pid, |_| true);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir(&cgroup).unwrap();
        fs::remove_dir(&slice).unwrap();
        assert_eq!((before, found), (false, Some(unit("devbox-test.service"))));
    }
}
