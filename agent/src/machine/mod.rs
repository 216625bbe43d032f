//! Whether this is still the machine that the daemon started on. Platforms snapshot machines, disk and RAM, and start many
//! from one; each of them would go on as if it were the first.
//!
//! - `id`: machine-id(5), looked at before each answer to a launch, and read where its file is another;
//! - `boot`: the boot's identity, which a process outlives only in a checkpoint; not under the unit, which hides it;
//! - `generation`, `kernel_log`: the kernel says in its log that the hypervisor gave the machine another generation.
//!
//! A copy that none of these tells apart is told apart by the control plane
//! ([`Continuity`](devbox_secrets_proto::devbox::Continuity)).

mod boot;
mod generation;
mod id;
mod kernel_log;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::admin::report::CloneDetection;

use id::IdFile;
use kernel_log::KernelLog;

/// Which installation this is.
const MACHINE_ID: &str = "/etc/machine-id";

/// By what a machine shows that it is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another machine-id(5).
    MachineId,
    /// Another boot under a process that went on.
    Boot,
    /// Another VM generation ID.
    VmGeneration,
}

impl Change {
    /// What launches are told: one line, with the remedy.
    #[must_use]
    pub fn reason(self) -> String {
        let by = match self {
            Self::MachineId => "its machine-id is another than at the daemon's start",
            Self::Boot => "it was booted since the daemon's start",
            Self::VmGeneration => "the hypervisor gave it a new VM generation ID",
        };
        format!(
            "this machine is a copy, or was set back to a snapshot ({by}), and serves nobody else's secrets: give it a join \
             token of its own (devbox-secretsd resume --join-token-file FILE)"
        )
    }
}

/// The machine as the daemon knows it.
#[derive(Debug)]
pub struct Machine {
    path: PathBuf,
    known: Mutex<Known>,
    /// Only where there is a generation to be told of.
    log: Option<KernelLog>,
}

#[derive(Debug)]
struct Known {
    id: IdFile,
    boot: Option<String>,
}

impl Known {
    fn of(path: &Path) -> Self {
        Self { id: IdFile::read(path), boot: boot::now() }
    }
}

impl Machine {
    /// This machine, as it is now. Opens the kernel's log and reads files: call before the process closes itself.
    #[must_use]
    pub fn this() -> Self {
        Self::with_id_at(Path::new(MACHINE_ID))
    }

    /// The same, with its machine-id at another place.
    #[must_use]
    pub fn with_id_at(path: &Path) -> Self {
        let known = Mutex::new(Known::of(path));
        let log = generation::is_there().then(KernelLog::open).flatten();
        Self { path: path.to_owned(), known, log }
    }

    /// What has changed, but for the boot. Two system calls at most; a new generation is told once.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        if self.log.as_ref().is_some_and(KernelLog::tells_of_a_new_generation) {
            return Some(Change::VmGeneration);
        }
        self.known().id.has_changed(&self.path).then_some(Change::MachineId)
    }

    /// Whether this process goes on in another boot than it started in, where the kernel may be asked. Reads a file.
    #[must_use]
    pub fn change_of_boot(&self) -> Option<Change> {
        let known = self.known();
        let is_another = known.boot.is_some() && boot::now().is_some_and(|now| Some(now) != known.boot);
        is_another.then_some(Change::Boot)
    }

    /// From now on this is the machine, whatever it was.
    pub fn accept(&self) {
        let _ = self.log.as_ref().map(KernelLog::tells_of_a_new_generation);
        *self.known() = Known::of(&self.path);
    }

    /// By what a change is noticed, for `status`.
    #[must_use]
    pub fn watched(&self) -> CloneDetection {
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

/// machine-id(5) of this machine as it is now; none where it has none.
#[must_use]
pub fn id() -> Option<String> {
    id::read(Path::new(MACHINE_ID))
}

/// What the control plane may know of this machine and its boot: the same as long as both are.
#[must_use]
pub fn identity() -> [Option<String>; 2] {
    [id(), boot::id()]
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_boot_of_a_process_does_not_change_under_it() {
        assert_eq!(Machine::this().change_of_boot(), None);
    }

    #[test]
    fn every_reason_says_what_to_do() {
        for change in [Change::MachineId, Change::Boot, Change::VmGeneration] {
            assert!(change.reason().contains("devbox-secretsd resume --join-token-file"));
        }
    }
}
