//! What becomes of a good answer: the lease goes on, or a bundle is opened and takes the place of what is held.

use std::fmt::Display;
use std::time::{Duration, Instant};

use devbox_secrets_proto::bundle::{Bundle, InvalidBundle};
use devbox_secrets_proto::seal::{BundleKey, Context};

use super::{Poller, SentRequest};
use crate::control_plane::Reply;
use crate::memory::Generation;
use crate::sync::SyncError;
use crate::sync::report::report_bundle;
use crate::telemetry::service_manager;

/// After an answer that came without the wait that was asked for: a deletion shall have its effect within a second.
const AFTER_HURRY: Duration = Duration::from_millis(900);

impl Poller<'_> {
    /// How long to pause after it.
    pub(super) fn unchanged(&mut self, asked: SentRequest) -> Duration {
        self.progress.metrics().unchanged();
        let lease = asked.answered() + self.times.max_stale;
        if self.vault.renew_lease(lease)
            && let Some(store) = &mut self.store
        {
            store.renew_lease(lease);
        }
        let is_early = asked.at.elapsed() < asked.wait / 2;
        if is_early { asked.wait.min(AFTER_HURRY) } else { Duration::ZERO }
    }

    /// Whole, or not at all.
    pub(super) fn take_up(
        &mut self,
        key: &BundleKey,
        reply: &Reply,
        asked: SentRequest,
        arrived: Instant,
    ) -> Result<(), SyncError> {
        let bundle = Bundle::parse(&reply.body)?;
        let revision = bundle.revision;
        if let Some(held) = self.highest.filter(|held| *held > revision) {
            return Err(SyncError::Rollback { held, offered: revision });
        }
        let generation = self.open(key, &bundle)?;
        self.progress.metrics().opened(arrived);
        let lease = asked.answered() + self.times.max_stale;
        if let Some(store) = &mut self.store {
            store.keep_secrets(self.identity.devbox_id(), &generation, lease);
        }
        self.retire(arrived);
        self.vault.replace(generation, lease);
        self.highest = Some(revision);
        let source = self.client.url().clone();
        self.announce(&source);
        Ok(())
    }

    /// What is held is about to go, by the answer that came at `arrived`.
    pub(super) fn retire(&self, arrived: Instant) {
        if let Ok(held) = self.vault.current() {
            held.on_wiped(self.progress.metrics().revoked(arrived));
        }
    }

    fn open(&self, key: &BundleKey, bundle: &Bundle<'_>) -> Result<Generation, SyncError> {
        let revision = bundle.revision;
        let count = u32::try_from(bundle.entries.len()).map_err(|_| InvalidBundle::Truncated)?;
        let context = Context { devbox_id: self.identity.devbox_id(), revision, count };
        let opener = key.opener(bundle.encapped_key, context)?;
        Generation::open(&self.memory, bundle, opener)
            .map_err(|source| SyncError::Generation { revision, source })
    }

    /// Tells what is held from now on: nothing where this machine is a copy, which takes up nothing.
    pub(super) fn announce(&mut self, source: &dyn Display) {
        let Ok(held) = self.vault.current() else { return };
        report_bundle(&held, source);
        if !self.announced {
            service_manager::ready();
            self.announced = true;
        }
        service_manager::status(&format!("serving {} secrets at revision {}", held.count(), held.revision()));
    }
}
