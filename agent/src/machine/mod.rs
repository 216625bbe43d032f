//! Clone detection: whether this is still the machine that the daemon started on. Platforms snapshot machines, disk and RAM, and
//! start many from one; without these checks each would continue as if it were the first.
//!
//! - machine-id(5), compared before each answer to a launch, and read only if its file changed;
//! - `boot`: the boot id, which a process outlives only in a checkpoint, read at most once a second; not under the unit, which
//!   hides it;
//! - `vm_generation`, `kernel_log`: the kernel logs that the hypervisor changed the VM generation ID.
//!
//! The control plane detects copies that pass all of these ([`Continuity`](devbox_secrets_proto::devbox::Continuity)).

mod boot;
mod kernel_log;
mod vm_generation;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use kernel_log::KernelLog;

use crate::sys::Stamp;

/// Shortest time between two reads of the boot id.
const BOOT_PAUSE: Duration = Duration::from_secs(1);

const MACHINE_ID: &str = "/etc/machine-id";
const MACHINE_ID_LEN: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    MachineId,
    Boot,
    VmGeneration,
}

impl Change {
    /// The line that launches get, with the remedy.
    #[must_use]
    pub(crate) fn reason(self) -> String {
        let by = match self {
            Self::MachineId => "its machine-id has changed since the daemon's start",
            Self::Boot => "its boot id has changed since the daemon's start",
            Self::VmGeneration => "the hypervisor gave it a new VM generation ID",
        };
        format!(
            "this machine is a copy, or was restored from a snapshot ({by}), and must not use the original's secrets: give it a \
             join token of its own (devbox-secretsd resume --join-token-file FILE)"
        )
    }
}

/// The signs by which the daemon would notice that this machine is a copy of another. The control plane sees one identity in
/// two places in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneDetection {
    pub machine_id: bool,
    /// Another boot under a process that was restored from a checkpoint. Not under the unit, which hides the boot id.
    pub boot_id: bool,
    /// Another VM generation ID: the hypervisor has one, and the daemon can read the kernel's log (Linux 5.18 or later).
    pub vm_generation: bool,
}

#[derive(Debug)]
pub(crate) struct Machine {
    path: PathBuf,
    known: Mutex<Known>,
    /// `None` if there is no VM generation ID to watch.
    log: Option<KernelLog>,
}

#[derive(Debug)]
struct Known {
    id: IdFile,
    boot: Option<String>,
    looked_at: Instant,
}

/// The machine-id as last read, and the version of its file: it is read again only if that changed.
#[derive(Debug)]
struct IdFile {
    stamp: Option<Stamp>,
    id: Option<String>,
}

impl IdFile {
    fn read(path: &Path) -> Self {
        // The stamp first: a write in between is read again.
        let stamp = Stamp::of(path);
        Self { stamp, id: read_id(path) }
    }

    /// Whether the id changed. A file that is gone, or not written yet, is no change.
    fn has_changed(&mut self, path: &Path) -> bool {
        let stamp = Stamp::of(path);
        if stamp == self.stamp {
            return false;
        }
        let now = read_id(path);
        let has_changed = now.is_some() && self.id.is_some() && now != self.id;
        if !has_changed {
            self.stamp = stamp;
            self.id = now.or(self.id.take());
        }
        has_changed
    }
}

impl Known {
    fn of(path: &Path) -> Self {
        Self { id: IdFile::read(path), boot: boot::now(), looked_at: Instant::now() }
    }

    /// Whether the boot id changed. Rate-limited, because it takes three system calls.
    fn is_in_another_boot(&mut self) -> bool {
        // Only a restored checkpoint has another boot id, so a second's delay is acceptable.
        if self.boot.is_none() || self.looked_at.elapsed() < BOOT_PAUSE {
            return false;
        }
        let is_another = boot::now().is_some_and(|now| Some(now) != self.boot);
        if !is_another {
            self.looked_at = Instant::now();
        }
        is_another
    }
}

impl Machine {
    /// This machine, as it is now. Opens the kernel's log and reads files: call before the process confines itself.
    #[must_use]
    pub(crate) fn this() -> Self {
        Self::with_id_at(Path::new(MACHINE_ID))
    }

    /// The same, with another path of its machine-id.
    #[must_use]
    pub(crate) fn with_id_at(path: &Path) -> Self {
        let known = Mutex::new(Known::of(path));
        let log = vm_generation::is_reported().then(KernelLog::open).flatten();
        Self { path: path.to_owned(), known, log }
    }

    /// Reports a change of the machine. Two system calls, and three more once a second; a new generation is reported once.
    #[must_use]
    pub(crate) fn change(&self) -> Option<Change> {
        if self.log.as_ref().is_some_and(KernelLog::reports_new_generation) {
            return Some(Change::VmGeneration);
        }
        let mut known = self.known();
        if known.id.has_changed(&self.path) {
            return Some(Change::MachineId);
        }
        known.is_in_another_boot().then_some(Change::Boot)
    }

    /// The kernel's log, to wait for: its next line may be that of a new generation. `None` if there is no generation to watch.
    #[must_use]
    pub(crate) fn log(&self) -> Option<File> {
        self.log.as_ref()?.another_handle().ok()
    }

    /// The file whose change makes this another machine.
    #[must_use]
    pub(crate) fn id_file(&self) -> &Path {
        &self.path
    }

    pub(crate) fn accept(&self) {
        // Reads past the lines that are known, so that they do not count as a new change.
        let _ = self.log.as_ref().map(KernelLog::reports_new_generation);
        *self.known() = Known::of(&self.path);
    }

    #[must_use]
    pub(crate) fn watched(&self) -> CloneDetection {
        let known = self.known();
        CloneDetection {
            machine_id: known.id.id.is_some(),
            boot_id: known.boot.is_some(),
            vm_generation: self.log.is_some(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current machine-id(5); `None` if there is none.
#[must_use]
pub(crate) fn id() -> Option<String> {
    read_id(Path::new(MACHINE_ID))
}

/// The id; `None` for an empty file or `uninitialized`, which images of machines have.
fn read_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    let is_id = id.len() == MACHINE_ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

/// The machine-id and the boot id, for the control plane, which sees only a digest of them.
#[must_use]
pub(crate) fn identity() -> [Option<String>; 2] {
    [id(), boot::id()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use devbox_secrets_tests::needs::skipped;

    fn machine(id: &str) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        fs::write(&path, id).unwrap();
        let machine = Machine::with_id_at(&path);
        (dir, machine)
    }

    #[test]
    fn another_machine_id_is_a_change_until_it_is_accepted() {
        let (dir, machine) = machine(&"a".repeat(32));
        assert_eq!(machine.change(), None);
        let renamed = dir.path().join("new");
        fs::write(&renamed, "b".repeat(32)).unwrap();
        fs::rename(renamed, dir.path().join("machine-id")).unwrap();
        assert_eq!((machine.change(), machine.change()), (Some(Change::MachineId), Some(Change::MachineId)));
        machine.accept();
        assert_eq!(machine.change(), None);
        assert!(machine.watched().machine_id);
    }

    #[test]
    fn another_boot_is_a_change_until_it_is_accepted() {
        let Some(boot) = boot::now() else { return skipped("a boot id that this process may read") };
        let (_dir, machine) = machine(&"a".repeat(32));
        let long_ago = Instant::now().checked_sub(2 * BOOT_PAUSE).unwrap();
        let set = |boot: &str| {
            let mut known = machine.known();
            (known.boot, known.looked_at) = (Some(boot.to_owned()), long_ago);
        };
        set(&boot);
        assert_eq!(machine.change(), None);
        set("another");
        assert_eq!((machine.change(), machine.change()), (Some(Change::Boot), Some(Change::Boot)));
        machine.accept();
        assert_eq!(machine.change(), None);
    }

    #[test]
    fn every_reason_says_what_to_do() {
        for change in [Change::MachineId, Change::Boot, Change::VmGeneration] {
            assert!(change.reason().contains("devbox-secretsd resume --join-token-file"));
        }
    }

    #[test]
    fn a_missing_or_rewritten_file_with_the_same_id_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        let id = "0123456789abcdef".repeat(2);
        fs::write(&path, &id).unwrap();
        let mut file = IdFile::read(&path);
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed(&path));
        fs::write(&path, "uninitialized\n").unwrap();
        assert!(!file.has_changed(&path));
        fs::write(&path, format!("{id}\n")).unwrap();
        assert!(!file.has_changed(&path));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "f".repeat(MACHINE_ID_LEN)).unwrap();
        assert!(file.has_changed(&path), "an id that was taken away in between is remembered");
    }
}
