//! Clone detection: whether this is still the machine that the daemon started on. Platforms snapshot machines, disk and RAM, and
//! start many from one; without these checks each would continue as if it were the first.
//!
//! - `id`: machine-id(5), compared before each answer to a launch, and read only if its file changed;
//! - `boot`: the boot id, which a process outlives only in a checkpoint, read at most once a second; not under the unit, which
//!   hides it;
//! - `vm_generation`, `kernel_log`: the kernel logs that the hypervisor changed the VM generation ID.
//!
//! The control plane detects copies that pass all of these ([`Continuity`](devbox_secrets_proto::devbox::Continuity)).

mod boot;
mod id;
mod kernel_log;
mod vm_generation;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use id::IdFile;
use kernel_log::KernelLog;

/// Shortest time between two reads of the boot id.
const BOOT_PAUSE: Duration = Duration::from_secs(1);

const MACHINE_ID: &str = "/etc/machine-id";

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

impl Known {
    fn of(path: &Path) -> Self {
        Self { id: IdFile::read(path), boot: boot::now(), looked_at: Instant::now() }
    }

    /// Whether the boot id changed. Rate-limited, because it takes three system calls.
    fn is_in_another_boot(&mut self) -> bool {
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
        let _ = self.log.as_ref().map(KernelLog::reports_new_generation);
        *self.known() = Known::of(&self.path);
    }

    #[must_use]
    pub(crate) fn watched(&self) -> CloneDetection {
        let known = self.known();
        CloneDetection {
            machine_id: known.id.is_known(),
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
    id::read(Path::new(MACHINE_ID))
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
        std::fs::write(&path, id).unwrap();
        let machine = Machine::with_id_at(&path);
        (dir, machine)
    }

    #[test]
    fn another_machine_id_is_a_change_until_it_is_accepted() {
        let (dir, machine) = machine(&"a".repeat(32));
        assert_eq!(machine.change(), None);
        let renamed = dir.path().join("new");
        std::fs::write(&renamed, "b".repeat(32)).unwrap();
        std::fs::rename(renamed, dir.path().join("machine-id")).unwrap();
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
}
