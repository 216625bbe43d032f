//! What becomes of a poll that brought nothing: what is held stays to its lease, or goes at once.

use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::Poller;
use crate::memory::{Holding, Loss, Vault};
use crate::sync::SyncError;
use crate::telemetry::{chain, service_manager};

/// After a refusal of this devbox, which only an operator can end.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

impl Poller<'_> {
    /// How long to pause after it.
    pub(super) fn failed(&mut self, error: &SyncError) -> Duration {
        let (arrived, message) = (Instant::now(), chain(error));
        self.progress.metrics().sync_failed(error.kind());
        let is_news = self.progress.failed(message.clone());
        if error.tells_of_a_clone() {
            self.retire(arrived);
            self.vault.lose(Loss::Cloned, clone_reason(&message));
            return AFTER_REFUSAL;
        }
        if error.ends_service() {
            self.retire(arrived);
            self.lose(&message, is_news);
            return AFTER_REFUSAL;
        }
        if error.lacks_room() {
            self.make_room(&message);
        }
        inform_waiting_launches(&self.vault, &message);
        if is_news {
            warn!(error = %message, "not synchronised: what is held is good until its lease ends");
            service_manager::status(&format!("not synchronised: {message}"));
        }
        self.backoff.next_delay()
    }

    fn lose(&mut self, message: &str, is_news: bool) {
        let reason = format!("this devbox may have no secrets any more: {message}");
        if is_news {
            error!(%reason, "secrets wiped");
            service_manager::status(&reason);
        }
        self.vault.lose(Loss::Revoked, reason);
        self.forget();
    }

    /// What is held is out of date, and may be what the new bundle lacks room for: the next attempt starts without it.
    fn make_room(&mut self, message: &str) {
        if self.held_revision().is_some() {
            warn!("what is held is wiped to make room for its successor");
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

/// What launches are told where the control plane saw this machine's identity go on elsewhere.
fn clone_reason(message: &str) -> String {
    format!(
        "another machine goes on as this devbox, and one of the two is a copy: give this one a join token of its own \
         (devbox-secretsd resume --join-token-file FILE): {message}"
    )
}

/// Before the first bundle, launches learn what keeps it away.
pub fn inform_waiting_launches(vault: &Vault, message: &str) {
    if let Holding::Without(unavailable) = vault.holding()
        && unavailable.loss == Loss::Starting
    {
        vault.lose(Loss::Starting, format!("the daemon has no secrets yet: {message}"));
    }
}
