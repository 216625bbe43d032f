//! Handles a good answer: the lease is renewed, or a bundle is decrypted and replaces the current one.

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

/// Pause after an answer that the server did not hold. Below a second, so that a deletion takes effect within one.
const AFTER_HURRY: Duration = Duration::from_millis(900);

impl Poller<'_> {
    pub(super) fn unchanged(&mut self, sent: SentRequest) -> Duration {
        self.progress.metrics().unchanged();
        let lease = sent.answered() + self.times.max_stale;
        if self.vault.renew_lease(lease)
            && let Some(store) = &mut self.store
        {
            store.renew_lease(lease);
        }
        let is_early = sent.at.elapsed() < sent.wait / 2;
        if is_early { sent.wait.min(AFTER_HURRY) } else { Duration::ZERO }
    }

    /// Accepts the bundle completely, or not at all.
    pub(super) fn accept(
        &mut self,
        key: &BundleKey,
        reply: &Reply,
        sent: SentRequest,
        arrived: Instant,
    ) -> Result<(), SyncError> {
        let bundle = Bundle::parse(&reply.body)?;
        let revision = bundle.revision;
        // A server restored from a backup, or an attacker, must not bring back deleted secrets.
        if let Some(held) = self.highest.filter(|held| *held > revision) {
            return Err(SyncError::Rollback { held, offered: revision });
        }
        let generation = self.open(key, &bundle)?;
        self.progress.metrics().opened(arrived);
        let lease = sent.answered() + self.times.max_stale;
        if let Some(store) = &mut self.store {
            // Stored before it is served: a crash in between must not leave an older revision to a
            // successor.
            store.keep_secrets(self.identity.devbox_id(), &generation, lease);
        }
        // Before the replacement, while the old generation can still be found.
        self.retire(arrived);
        self.vault.replace(generation, lease);
        self.highest = Some(revision);
        let source = self.client.url().clone();
        self.announce(&source);
        Ok(())
    }

    /// The answer that came at `arrived` replaces or revokes the current secrets: measures the time until they are wiped.
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

    /// Reports the new secrets. There are none if this machine is a copy, whose vault ignores bundles.
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
