//! Puts a [`Status`] together.

use std::sync::Arc;

use super::{Launches, Memory, Process, State, Status, Variable};
use crate::control_plane::ServerUrl;
use crate::harden::Hardening;
use crate::machine::Machine;
use crate::memory::{self, Generation, Holding, Vault};
use crate::restart::StoreView;
use crate::sync::Progress;
use crate::sys::SecretMemory;
use crate::telemetry::{audit, chain, stderr};

#[derive(Debug)]
pub(crate) struct Sources {
    pub server: ServerUrl,
    pub vault: Arc<Vault>,
    pub memory: SecretMemory,
    pub progress: Arc<Progress>,
    pub hardening: Hardening,
    pub stored: Arc<StoreView>,
    pub machine: Arc<Machine>,
    /// When the daemon started, in milliseconds since the epoch.
    pub started_ms: i64,
}

impl Sources {
    #[must_use]
    pub(crate) fn status(&self, launches: Launches) -> Status {
        self.listing(launches, |generation| generation.variables().map(Variable::from).collect())
    }

    /// The same without `secrets`: metrics need their number only, and a devbox may have thousands.
    #[must_use]
    pub(crate) fn summary(&self, launches: Launches) -> Status {
        self.listing(launches, |_| Vec::new())
    }

    fn listing(&self, launches: Launches, list: impl FnOnce(&Generation) -> Vec<Variable>) -> Status {
        let progress = self.progress.snapshot();
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devbox_id: progress.devbox_id,
            server: self.server.to_string(),
            state: State::Starting,
            reason: None,
            revision: None,
            last_sync_age: progress.last_sync_age,
            last_error: progress.failure,
            lease_left: None,
            certificate_expires_ms: progress.certificate.map(|validity| validity.not_after_ms),
            memory: self.memory(),
            hardening: self.hardening.clone(),
            clone_detection: self.machine.watched(),
            restart: self.stored.now(),
            launches,
            timings: progress.timings,
            secrets: Vec::new(),
            names: 0,
            revision_age: None,
            process: self.process(),
        };
        match self.vault.holding() {
            Holding::Ready { generation, lease_left } => Status {
                state: State::Ready,
                revision: Some(generation.revision()),
                revision_age: Some(generation.age()),
                lease_left: Some(lease_left),
                names: generation.count() as u64,
                secrets: list(&generation),
                ..status
            },
            Holding::Without(lost) => {
                Status { state: lost.loss.into(), reason: Some(lost.reason.to_string()), ..status }
            }
        }
    }

    fn memory(&self) -> Memory {
        Memory {
            backing: self.memory.backing().word().to_owned(),
            fallback_reason: self.memory.fallback_reason().map(|reason| chain(reason)),
            bytes_locked: self.memory.bytes_locked(),
            limit: self.memory.limit(),
        }
    }

    fn process(&self) -> Process {
        Process {
            started_ms: self.started_ms,
            audit_dropped: audit::dropped(),
            log_dropped: stderr::writer().lost(),
        }
    }
}

impl From<memory::Variable<'_>> for Variable {
    fn from(variable: memory::Variable<'_>) -> Self {
        Self { env: variable.name.to_owned(), secret: variable.secret.to_owned(), version: variable.version }
    }
}
