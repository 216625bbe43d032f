//! The launch socket of `devbox-exec`: one request and one answer a connection
//! ([`devbox_launch_proto`]).
//!
//! Each connection has a deadline for its request and one for its answer, and takes one of a
//! bounded number of slots until its answer is read. No user can take them all, so a slow or
//! hostile peer delays only itself.

mod answer;
mod connection;
mod refusal;
mod report;
mod selection;
mod slots;
mod stream;
mod unread;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use arc_swap::ArcSwap;
use devbox_launch_proto::marked_len;
use tokio::net::UnixListener;
use tokio::select;
use tokio::task::coop::unconstrained;

use self::answer::{WhyInline, send_refusal};
use self::connection::serve_connection;
use self::refusal::Refusal;
use self::report::{LOG_INTERVAL, Seldom, report_busy};
use self::slots::{LaunchSlot, LaunchSlots};
use self::stream::Stream;
use self::unread::{Content, Unread, Why};
use crate::access::authorize::authorize_unverified;
use crate::access::explain::Explanation;
use crate::access::peer::{Cgroups, Examiner, Peer};
use crate::access::policy::{Policy, Relation};
use crate::freshness::Freshness;
use crate::local_api::accept::Acceptor;
use crate::memory::{Pool, Vault};
use crate::metrics::Metrics;
use crate::status::Launches;
use crate::sys::SecretMemory;

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

/// Serves launches on `listener` until `shutdown`, then accepts no more. Running launches continue
/// as long as the runtime; those that wait for secrets end with the vault's loss
/// ([`Vault::lose`](crate::memory::Vault::lose)).
pub async fn serve(listener: UnixListener, state: Arc<LaunchState>, shutdown: impl Future<Output = ()>) {
    let shutdown = pin!(shutdown);
    let others = async {
        select! {
            () = shutdown => {}
            () = keep_pool_sized(&state) => {}
            () = state.unread.watch(&state.vault, &state.metrics) => {}
        }
    };
    select! {
        // Launches before all else that may have been woken with them. A flood of them uses up the
        // task's budget at each turn, so nothing else in the task may depend on it.
        biased;
        () = accept_all(listener, &state) => {}
        () = unconstrained(others) => {}
    }
    // After the accept loop, which would add further answers.
    state.unread.close(&state.metrics).await;
}

/// Keeps prepared descriptors as long as the current secrets, and none without secrets.
async fn keep_pool_sized(state: &LaunchState) {
    let mut changes = state.vault.changes();
    loop {
        let len = state.vault.current().map_or(0, |generation| generation.strings().len());
        state.pool.resize(if len == 0 { 0 } else { marked_len(len) });
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn accept_all(listener: UnixListener, state: &Arc<LaunchState>) {
    let Some(acceptor) = Acceptor::new(listener, "launch") else { return };
    let mut busy = BusyLog::default();
    loop {
        // Accepted even without a free slot: a queue would let one user keep out all others, and
        // the refusal says why.
        if let Some((socket, ())) = acceptor.accept(async {}).await {
            admit(Stream::new(socket), state, &mut busy).await;
        }
    }
}

/// Polls a connection once here, because its request is usually there and it completes without a
/// task. A task serves it if it has to wait.
async fn admit(stream: Stream, state: &Arc<LaunchState>, busy: &mut BusyLog) {
    // Closed without an answer: the kernel names no peer, so no rule can apply.
    let Ok(peer) = Peer::of(&stream) else { return };
    // The ids alone decide about the slot, so that a stranger costs no look at its process.
    let relation = state.policy.load().relation(peer);
    let Some(slot) = find_slot(&state.slots, state, peer, relation) else {
        return turn_away(stream, state, peer, relation, busy);
    };
    let mut launch = Box::pin(serve_connection(stream, peer, slot, Arc::clone(state)));
    let waits = poll_fn(|context| Poll::Ready(launch.as_mut().poll(context).is_pending()));
    if waits.await {
        tokio::spawn(launch);
    }
}

/// A free slot, if necessary that of an answer that has been read by now.
fn find_slot(
    slots: &Arc<LaunchSlots>,
    state: &LaunchState,
    peer: Peer,
    relation: Relation,
) -> Option<LaunchSlot> {
    let slot = slots.take(peer.uid, relation);
    if slot.is_none() && state.unread.make_room(&state.metrics) {
        return slots.take(peer.uid, relation);
    }
    slot
}

/// Refuses a launch. It gets a message unless too many refusals are unread.
fn turn_away(stream: Stream, state: &LaunchState, peer: Peer, relation: Relation, busy: &mut BusyLog) {
    let refusal = Refusal::busy(peer.uid);
    if let Some(slot) = find_slot(&state.turned_away, state, peer, relation) {
        send_refusal(&stream, &refusal);
        state.unread.keep(stream, peer, slot, Content::Harmless, &state.metrics);
    }
    state.metrics.launch_refused(refusal.reason());
    busy.note(peer);
}

/// Counts the refusals since the last line about them.
#[derive(Default)]
struct BusyLog {
    last: Option<Instant>,
    silent: u64,
}

impl BusyLog {
    fn note(&mut self, peer: Peer) {
        self.silent += 1;
        if self.last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            report_busy(peer, self.silent);
            *self = Self { last: Some(Instant::now()), silent: 0 };
        }
    }
}
