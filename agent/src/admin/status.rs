//! How the daemon is, put together for `GET /status`.

use std::time::Duration;

use super::Admin;
use super::report::{LastError, Launches, Memory, Report, Restart, State, Timings, Variable};
use crate::memory::{self, Holding, Loss};
use crate::telemetry::chain;

impl Admin {
    /// Everything that may be known, at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let progress = self.progress.snapshot();
        let held = Held::of(self.vault.holding());
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devbox_id: progress.devbox_id,
            server: self.server.to_string(),
            state: held.state,
            reason: held.reason,
            revision: held.revision,
            last_sync_age_s: progress.last_sync_age.map(|age| age.as_secs()),
            last_error: progress
                .failure
                .map(|failure| LastError { message: failure.message, since_ms: failure.since_ms }),
            lease_left_s: held.lease_left_s,
            certificate_expires_ms: progress.certificate.map(|validity| validity.not_after_ms),
            memory: self.memory(),
            hardening: self.hardening.clone(),
            clone_detection: self.machine.watched(),
            restart: self.restart(),
            launches: self.launches(),
            timings: Timings {
                enroll_ms: progress.timings.enroll.map(milliseconds),
                fetch_ms: progress.timings.fetch.map(milliseconds),
            },
            secrets: held.secrets,
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

    fn restart(&self) -> Restart {
        let waiting = self.waiting.look();
        Restart { identity: waiting.identity, secrets_revision: waiting.secrets }
    }

    fn launches(&self) -> Launches {
        let counts = self.launches.counts();
        Launches { served: counts.served, refused: counts.refused }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The part of a report that is about what is held.
struct Held {
    state: State,
    reason: Option<String>,
    revision: Option<u64>,
    lease_left_s: Option<u64>,
    secrets: Vec<Variable>,
}

impl Held {
    fn of(holding: Holding) -> Self {
        match holding {
            Holding::Ready { generation, lease_left } => Self {
                state: State::Ready,
                reason: None,
                revision: Some(generation.revision()),
                lease_left_s: Some(lease_left.as_secs()),
                secrets: generation.variables().map(variable).collect(),
            },
            Holding::Without(unavailable) => Self {
                state: state_of(unavailable.loss),
                reason: Some(unavailable.reason.to_string()),
                revision: None,
                lease_left_s: None,
                secrets: Vec::new(),
            },
        }
    }
}

fn variable(variable: memory::Variable<'_>) -> Variable {
    Variable { env: variable.name.to_owned(), secret: variable.secret.to_owned(), version: variable.version }
}

pub(super) fn state_of(loss: Loss) -> State {
    match loss {
        Loss::Starting => State::Starting,
        Loss::Stale => State::Stale,
        Loss::Quiesced => State::Quiesced,
        Loss::Cloned => State::Cloned,
        Loss::Revoked | Loss::Stopping => State::Lost,
    }
}
