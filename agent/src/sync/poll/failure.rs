//! Handles a failed poll: the secrets stay until their lease expires, or are wiped at once.

use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::Poller;
use crate::memory::{Holding, Loss, Vault};
use crate::sync::SyncError;
use crate::telemetry::{chain, service_manager};

/// Pause after a refusal of this devbox, which only an operator can lift.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

impl Poller<'_> {
    pub(super) fn failed(&mut self, error: &SyncError) -> Duration {
        let arrived = Instant::now();
        let message = chain(error);
        self.progress.metrics().sync_failed(error.kind());
        let is_news = self.progress.failed(message.clone());
        if error.reports_a_clone() {
            self.retire(arrived);
            self.vault.lose(Loss::Cloned, clone_reason(&message));
            return AFTER_REFUSAL;
        }
        if error.revokes() {
            self.retire(arrived);
            self.lose(&message, is_news);
            return AFTER_REFUSAL;
        }
        if error.lacks_room() {
            self.make_room(&message);
        }
        inform_waiting_launches(&self.vault, &message);
        if is_news {
            warn!(error = %message, "not synchronised: the secrets stay until their lease expires");
            service_manager::status(&format!("not synchronised: {message}"));
        }
        self.backoff.next_delay()
    }

    fn lose(&mut self, message: &str, is_news: bool) {
        let reason = format!("this devbox may not have secrets any more: {message}");
        if is_news {
            error!(%reason, "secrets wiped");
            service_manager::status(&reason);
        }
        // The vault before the stored copy, because launches are served from the vault.
        self.vault.lose(Loss::Revoked, reason);
        self.forget();
    }

    /// The current secrets are outdated and may take the room that the new bundle lacks: the next attempt starts without them.
    fn make_room(&mut self, message: &str) {
        if self.held_revision().is_some() {
            warn!("wiping the current secrets to make room for the new bundle");
            self.vault.lose(Loss::Starting, format!("the daemon makes room for new secrets: {message}"));
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some(store) = &mut self.store {
            store.forget_secrets();
        }
    }
}

/// The line that launches get after the control plane saw another machine continue with this one's identity.
fn clone_reason(message: &str) -> String {
    format!(
        "another machine continues as this devbox, and one of the two is a copy: give this one a join token of its own \
         (devbox-secretsd resume --join-token-file FILE): {message}"
    )
}

/// Until the first bundle arrives, launches get the reason why it does not.
pub(crate) fn inform_waiting_launches(vault: &Vault, message: &str) {
    if let Holding::Without(unavailable) = vault.holding()
        && unavailable.loss == Loss::Starting
    {
        vault.lose(Loss::Starting, format!("the daemon has no secrets yet: {message}"));
    }
}
