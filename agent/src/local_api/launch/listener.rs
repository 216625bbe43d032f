//! Accepts connections, and refuses those without a slot.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use devbox_launch_proto::marked_len;
use tokio::net::UnixListener;
use tokio::select;
use tokio::task::coop::unconstrained;

use super::LaunchState;
use super::answer::send_refusal;
use super::connection::serve_connection;
use super::nonblocking::Stream;
use super::refusal::Refusal;
use super::report::{LOG_INTERVAL, report_busy};
use super::slots::{LaunchSlot, LaunchSlots};
use super::unread::Content;
use crate::access::peer::Peer;
use crate::access::policy::Relation;
use crate::local_api::accept::Acceptor;

/// Serves launches on `listener` until `shutdown`, then accepts no more. Running launches continue
/// as long as the runtime; those that wait for secrets end with the vault's loss
/// ([`Vault::lose`](crate::memory::Vault::lose)).
pub async fn serve(listener: UnixListener, state: Arc<LaunchState>, shutdown: impl Future<Output = ()>) {
    let shutdown = pin!(shutdown);
    let others = async {
        select! {
            () = shutdown => {}
            () = keep_pool_sized(&state) => {}
            () = state.unread.watch(state.vault.changes(), &state.metrics) => {}
        }
    };
    select! {
        // Launches before all else that may have been woken with them. A flood of them uses up the
        // task's budget at each turn, so nothing else in the task may depend on it.
        biased;
        () = accept_all(listener, &state) => {}
        () = unconstrained(others) => {}
    }
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
    let Ok(peer) = Peer::of(&stream) else { return };
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
