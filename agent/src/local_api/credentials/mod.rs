//! Credentials for systemd units: `LoadCredential=db_password:/run/devbox-secrets/credentials.sock`.
//!
//! systemd connects once for each credential at each start of a unit, and reads to the end
//! ([`address`] has the form of its requests). It is believed only as uid 0 in the unit's own
//! cgroup ([`Cgroups`]); [`CredentialRules`] grant variables to units. A refusal makes the unit's
//! start fail at once, with the reason in this daemon's log.
//!
//! A connection is accepted only when it can be served. In the kernel's queue it survives a restart
//! of this daemon, while one that was accepted and lost would be an empty credential. So units wait
//! in that queue through each state that may pass (`passing`), and a stopping daemon accepts none.

pub mod address;
mod answer;
mod caller;
mod passing;
mod refusal;
mod report;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{UnixListener, UnixStream};
use tokio::select;
use tokio::time::timeout;
use tracing::{debug, error, warn};

pub(crate) use self::refusal::REFUSALS;

use self::address::Question;
use self::answer::Granted;
use self::passing::Passing;
use self::refusal::Refusal;
use self::report::{report_refused, report_served};
use crate::access::peer::{Cgroups, Peer};
use crate::access::policy::credentials::CredentialRules;
use crate::freshness::Freshness;
use crate::local_api::accept::{Acceptor, Slots, in_runtime};
use crate::memory::{Generation, Vault};
use crate::metrics::Metrics;
use crate::telemetry::chain;

/// Connections that are served at once. The others wait in the kernel's queue.
const MAX_CONNECTIONS: u32 = 32;

#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For units that wait for secrets, from the start of each state that may pass. systemd's
    /// default for a unit's start is 90 s.
    passing: Duration,
    answer: Duration,
}

const PATIENCE: Patience = Patience { passing: Duration::from_secs(60), answer: Duration::from_secs(5) };

#[derive(Debug)]
pub(crate) struct UnitCredentials {
    vault: Arc<Vault>,
    freshness: Arc<Freshness>,
    rules: ArcSwap<CredentialRules>,
    cgroups: Cgroups,
    patience: Patience,
    metrics: Arc<Metrics>,
}

impl UnitCredentials {
    #[must_use]
    pub(crate) fn new(vault: Arc<Vault>, rules: CredentialRules) -> Self {
        Self {
            vault,
            freshness: Arc::default(),
            rules: ArcSwap::from_pointee(rules),
            cgroups: Cgroups::of_this_machine(),
            patience: PATIENCE,
            metrics: Arc::default(),
        }
    }

    /// Serves a unit once `freshness` confirms that the vault is current, instead of at any time
    /// within the lease.
    #[must_use]
    pub(crate) fn checked_by(self, freshness: Arc<Freshness>) -> Self {
        Self { freshness, ..self }
    }

    #[must_use]
    pub(crate) fn counted_in(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    pub(crate) fn set_rules(&self, rules: CredentialRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Serves `listener` until `shutdown`. Then it accepts no more, and returns when all responses are sent.
    pub(crate) async fn serve(self: Arc<Self>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let slots = Slots::new(MAX_CONNECTIONS);
        select! {
            () = shutdown => {}
            () = Arc::clone(&self).accept_all(listener, &slots) => {}
        }
        // A connection that is closed without a byte would be an empty credential.
        slots.all_free().await;
    }

    async fn accept_all(self: Arc<Self>, listener: UnixListener, slots: &Slots) {
        let Some(acceptor) = Acceptor::new(listener, "credentials") else { return };
        let mut passing = Passing::new(&self.vault, self.patience.passing);
        loop {
            let ready = async {
                // The slot before the secrets: without one, a connection could not be served
                // anyway.
                let slot = slots.take().await;
                self.until_served(&mut passing).await;
                slot
            };
            let Some((stream, slot)) = acceptor.accept(ready).await else { continue };
            let credentials = Arc::clone(&self);
            tokio::spawn(async move {
                match in_runtime(stream) {
                    Ok(stream) => credentials.answer(stream).await,
                    Err(error) => error!(%error, "a credential cannot be served"),
                }
                drop(slot);
            });
        }
    }

    /// Waits until a connection can be served without waiting once it is accepted.
    async fn until_served(&self, passing: &mut Passing<'_>) {
        loop {
            passing.ended().await;
            // The response itself checks again; by then there is no reason to wait.
            let confirmed = self.freshness.current(&self.vault).await;
            drop(confirmed);
            if !passing.is_on() {
                return;
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) {
        let peer = Peer::of(&stream).ok();
        let sent = match self.decide(&stream).await {
            Ok((question, generation, granted)) => {
                let Granted { at, rule } = granted;
                report_served(&self.metrics, peer, &question, &generation, at, rule);
                timeout(self.patience.answer, answer::send_value(&mut stream, &generation, at)).await
            }
            Err(refusal) => {
                report_refused(&self.metrics, peer, &refusal);
                timeout(self.patience.answer, answer::send_refusal(&mut stream, &chain(&refusal))).await
            }
        };
        match sent {
            Ok(Ok(())) => {}
            // systemd stops reading as soon as the response is too long.
            Ok(Err(error)) => debug!(%error, "a credential's answer was not taken whole"),
            Err(_) => warn!("a credential's answer was not taken in time"),
        }
    }

    async fn decide(&self, stream: &UnixStream) -> Result<(Question, Arc<Generation>, Granted), Refusal> {
        let question = caller::question(stream, &self.cgroups)?;
        let held = self.freshness.current(&self.vault).await;
        let generation = held.map_err(Refusal::Unavailable)?;
        let granted = answer::variable(&generation, &self.rules.load(), &question)?;
        Ok((question, generation, granted))
    }
}
