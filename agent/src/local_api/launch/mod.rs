//! The launch socket of `devbox-exec`: one request and one answer a connection
//! ([`devbox_launch_proto`]).
//!
//! Each connection has a deadline for its request and one for its answer, and takes one of a
//! bounded number of slots until its answer is read. No user can take them all, so a slow or
//! hostile peer delays only itself.

mod answer;
mod connection;
mod listener;
mod nonblocking;
mod refusal;
mod report;
mod request;
mod selection;
mod slots;
mod unread;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

use self::answer::WhyInline;
use self::report::Seldom;
use self::slots::LaunchSlots;
use self::unread::{Unread, Why};
use crate::access::authorize::authorize_unverified;
use crate::access::explain::Explanation;
use crate::access::peer::{Cgroups, Examiner, Peer};
use crate::access::policy::Policy;
use crate::freshness::Freshness;
use crate::memory::{Pool, Vault};
use crate::metrics::Metrics;
use crate::status::Launches;
use crate::sys::SecretMemory;

pub use listener::serve;

/// The labels of withdrawn and of inline answers, for metrics.
pub(crate) const WITHDRAWALS: [&str; 3] = [Why::ALL[0].word(), Why::ALL[1].word(), Why::ALL[2].word()];
pub(crate) const INLINE_REASONS: [&str; 4] =
    [WhyInline::ALL[0].word(), WhyInline::ALL[1].word(), WhyInline::ALL[2].word(), WhyInline::ALL[3].word()];

/// The state that all launches share.
#[derive(Debug)]
pub struct LaunchState {
    vault: Arc<Vault>,
    freshness: Arc<Freshness>,
    policy: ArcSwap<Policy>,
    pool: Pool,
    slots: Arc<LaunchSlots>,
    /// For connections that only get a refusal.
    turned_away: Arc<LaunchSlots>,
    unread: Unread,
    seldom: Seldom,
    metrics: Arc<Metrics>,
    examiner: Examiner,
}

impl LaunchState {
    /// Serves launches from `vault` by `policy`, in memory of the kind of `memory`.
    ///
    /// # Errors
    /// The thread that prepares descriptors cannot be started.
    pub fn new(vault: Arc<Vault>, memory: SecretMemory, policy: Policy) -> io::Result<Self> {
        Ok(Self {
            vault,
            freshness: Arc::default(),
            policy: ArcSwap::from_pointee(policy),
            pool: Pool::new(memory)?,
            slots: Arc::new(LaunchSlots::for_this_process()),
            turned_away: Arc::new(LaunchSlots::for_turned_away()),
            unread: Unread::default(),
            seldom: Seldom::default(),
            metrics: Arc::default(),
            examiner: Examiner::new(Cgroups::of_this_machine()),
        })
    }

    /// Uses `examiner`, instead of one that starts with the first question.
    #[must_use]
    pub(crate) fn examined_by(self, examiner: Examiner) -> Self {
        Self { examiner, ..self }
    }

    /// Serves a launch once `freshness` confirms that the vault is current, instead of at any time
    /// within the lease.
    #[must_use]
    pub(crate) fn checked_by(self, freshness: Arc<Freshness>) -> Self {
        Self { freshness, ..self }
    }

    #[must_use]
    pub(crate) fn counted_in(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Explains the decision about the process with the ids of `peer`, and what it means for each variable. The ids are
    /// believed, because nothing is handed out.
    pub(crate) async fn explain(&self, peer: Peer) -> Explanation {
        let decision = authorize_unverified(self.policy.load_full(), &self.examiner, peer).await;
        let held = self.vault.current().ok();
        let names = held.as_ref().map(|generation| generation.variables().map(|variable| variable.name));
        Explanation::new("the running daemon".to_owned(), &decision, names)
    }

    #[must_use]
    pub(crate) fn counts(&self) -> Launches {
        let [served, refused, abandoned] = self.metrics.launches();
        let connections = self.slots.taken();
        Launches { served, refused, abandoned, connections, examinations: self.examiner.busy() }
    }
}
