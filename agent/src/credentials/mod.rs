//! Credentials for systemd units: `LoadCredential=db_password:/run/devbox-secrets/credentials.sock`.
//!
//! systemd connects once for each credential at each start of a unit, and reads to the end ([`address`] has how it says
//! what it asks for). It is believed only from uid 0 in the unit's own cgroup ([`Cgroups`]); [`rules`] say which variables
//! a unit may load. A refusal makes the unit's start fail at once, with the reason in this daemon's log.
//!
//! A connection is accepted only when it can be answered: one that waits in the kernel's queue survives a restart of this
//! daemon, while one that was accepted and then lost would be an empty credential.

pub mod address;
mod answer;
mod caller;
mod refusal;
mod report;
pub mod rules;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

pub use self::refusal::REFUSALS;

use self::address::Question;
use self::refusal::Refusal;
use self::report::{report_refused, report_served};
use self::rules::CredentialRules;
use crate::freshness::Freshness;
use crate::memory::{Generation, Holding, Loss, Vault};
use crate::metrics::Metrics;
use crate::peer::{Cgroups, Peer};
use crate::telemetry::chain;

/// Answers under way at once. The others wait in the kernel's queue.
const PLACES: usize = 32;
/// Pause after a failed accept, so that exhausted descriptors do not make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long anything may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Units wait for the first secrets, from the daemon's start. systemd gives a unit 90 s unless told otherwise.
    starting: Duration,
    /// The peer takes an answer.
    answer: Duration,
}

const PATIENCE: Patience = Patience { starting: Duration::from_secs(60), answer: Duration::from_secs(5) };

/// What all answers share.
#[derive(Debug)]
pub struct Credentials {
    vault: Arc<Vault>,
    freshness: Arc<Freshness>,
    rules: ArcSwap<CredentialRules>,
    cgroups: Cgroups,
    patience: Patience,
    metrics: Arc<Metrics>,
}

impl Credentials {
    /// Units are answered from `vault` by `rules`.
    #[must_use]
    pub fn new(vault: Arc<Vault>, rules: CredentialRules) -> Self {
        let (rules, cgroups) = (ArcSwap::from_pointee(rules), Cgroups::of_this_machine());
        let (freshness, metrics) = (Arc::default(), Arc::default());
        Self { vault, freshness, rules, cgroups, patience: PATIENCE, metrics }
    }

    /// A unit is answered once `freshness` says that the vault is current, instead of at any time in the lease.
    #[must_use]
    pub fn checked_by(self, freshness: Arc<Freshness>) -> Self {
        Self { freshness, ..self }
    }

    /// What becomes of credentials is counted in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Answers from now on are decided by `rules`.
    pub fn set_rules(&self, rules: CredentialRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Serves `listener` for ever.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        if timeout(self.patience.starting, self.not_starting()).await.is_err() {
            warn!("there are no secrets yet: units that ask for credentials are refused until there are");
        }
        let places = Arc::new(Semaphore::new(PLACES));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let credentials = Arc::clone(&self);
                    tokio::spawn(async move {
                        credentials.answer(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    error!(%error, "a credential cannot be answered");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Until there are secrets, or there will be none.
    async fn not_starting(&self) {
        let mut changes = self.vault.changes();
        while matches!(self.vault.holding(), Holding::Without(without) if without.loss == Loss::Starting) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) {
        let peer = Peer::of(&stream).ok();
        let sent = match self.decide(&stream).await {
            Ok((question, generation, at)) => {
                let rule = self.rules.load().granting(&question.unit, generation.name(at));
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
            // systemd reads no further than it must to know that an answer is too long.
            Ok(Err(error)) => debug!(%error, "a credential's answer was not taken whole"),
            Err(_) => warn!("a credential's answer was not taken in time"),
        }
    }

    async fn decide(&self, stream: &UnixStream) -> Result<(Question, Arc<Generation>, usize), Refusal> {
        let question = caller::question(stream, &self.cgroups)?;
        let held = self.freshness.current(&self.vault).await;
        let generation = held.map_err(Refusal::Unavailable)?;
        let at = answer::variable(&generation, &self.rules.load(), &question)?;
        Ok((question, generation, at))
    }
}
