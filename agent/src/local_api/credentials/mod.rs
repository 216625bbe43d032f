//! Credentials for systemd units: `LoadCredential=db_password:/run/devbox-secrets/credentials.sock`.
//!
//! systemd connects once for each credential at each start of a unit, and reads to the end ([`address`] has how it says
//! what it asks for). It is believed only from uid 0 in the unit's own cgroup ([`Cgroups`]); [`CredentialRules`] say which variables
//! a unit may load. A refusal makes the unit's start fail at once, with the reason in this daemon's log.
//!
//! A connection is accepted only when it can be answered: one that waits in the kernel's queue survives a restart of this
//! daemon, while one that was accepted and then lost would be an empty credential. So units wait in that queue through each
//! state that may pass (`passing`), and a stopping daemon accepts none.

pub mod address;
mod answer;
mod caller;
mod passing;
mod refusal;
mod report;

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

pub use self::refusal::REFUSALS;

use self::address::Question;
use self::passing::Passing;
use self::refusal::Refusal;
use self::report::{report_refused, report_served};
use crate::access::peer::{Cgroups, Peer};
use crate::access::policy::credentials::CredentialRules;
use crate::freshness::Freshness;
use crate::memory::{Generation, Vault};
use crate::metrics::Metrics;
use crate::sys::{Owned, wait_for};
use crate::telemetry::chain;

/// Answers under way at once. The others wait in the kernel's queue.
const PLACES: u32 = 32;
/// Pause after a failed accept, so that exhausted descriptors do not make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long anything may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Units wait for secrets, from the beginning of each state that may pass. systemd gives a unit 90 s to start unless
    /// told otherwise.
    passing: Duration,
    /// The peer takes an answer.
    answer: Duration,
}

const PATIENCE: Patience = Patience { passing: Duration::from_secs(60), answer: Duration::from_secs(5) };

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

    /// Serves `listener` until `shutdown`; then accepts no more, and ends when the answers under way are sent.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(PLACES as usize));
        select! {
            () = shutdown => {}
            error = Arc::clone(&self).accept_all(listener, &places) => error!(%error, "units are not served any more"),
        }
        // A connection that is closed without a byte would be an empty credential.
        let _ = places.acquire_many(PLACES).await;
    }

    /// Ends only if the socket cannot be used at all.
    async fn accept_all(self: Arc<Self>, listener: UnixListener, places: &Arc<Semaphore>) -> io::Error {
        let listener = match listener.into_std().and_then(wait_for) {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        let mut passing = Passing::new(&self.vault, self.patience.passing);
        while let Ok(place) = Arc::clone(places).acquire_owned().await {
            match self.accept(&listener, &mut passing).await {
                Ok(stream) => {
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
        io::ErrorKind::BrokenPipe.into()
    }

    /// The next connection, accepted once it can be answered without any wait.
    async fn accept(
        &self,
        listener: &AsyncFd<Owned<StdListener>>,
        passing: &mut Passing<'_>,
    ) -> io::Result<UnixStream> {
        loop {
            let mut waiting = listener.readable().await?;
            passing.ended().await;
            // The answer itself looks again; then there is nothing left to wait for.
            let confirmed = self.freshness.current(&self.vault).await;
            drop(confirmed);
            if passing.is_on() {
                continue;
            }
            if let Ok(accepted) = waiting.try_io(|listener| listener.get_ref().0.accept()) {
                let (stream, _) = accepted?;
                stream.set_nonblocking(true)?;
                return UnixStream::from_std(stream);
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
