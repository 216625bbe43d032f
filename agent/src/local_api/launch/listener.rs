//! Takes connections in, and turns away whom no place is left for.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use devbox_launch_proto::marked_len;
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::net::UnixListener;
use tokio::select;
use tokio::time::sleep;
use tracing::error;

use super::LaunchState;
use super::answer::send_refusal;
use super::at_once::{Stream, in_event_loop};
use super::connection::serve_connection;
use super::places::{Place, Places};
use super::refusal::Refusal;
use super::report::{LOG_INTERVAL, report_busy};
use super::unread::Content;
use crate::access::peer::Peer;
use crate::access::policy::Relation;

/// Pause after a failed accept, so that exhausted descriptors do not make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves launches on `listener` until `shutdown`; then takes no new ones. Launches under way go on as long as the runtime
/// does; those that wait for secrets end when the vault tells them so ([`Vault::lose`](crate::memory::Vault::lose)).
pub async fn serve(listener: UnixListener, state: Arc<LaunchState>, shutdown: impl Future<Output = ()>) {
    let shutdown = pin!(shutdown);
    select! {
        () = shutdown => {}
        () = accept_all(listener, &state) => {}
        () = keep_pool_sized(&state) => {}
        () = state.unread.watch(state.vault.changes(), &state.metrics) => {}
    }
    state.unread.close(&state.metrics).await;
}

/// Prepared descriptors fit what is held, and there are none when nothing is.
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

/// Returns only if the event loop takes no listener at all.
async fn accept_all(listener: UnixListener, state: &Arc<LaunchState>) {
    let listener = match listener.into_std().and_then(in_event_loop) {
        Ok(listener) => listener,
        Err(error) => return error!(%error, "no launch can be accepted"),
    };
    let mut busy = BusyLog::default();
    loop {
        match listener.async_io(Interest::READABLE, |listener| listener.accept()).await {
            Ok((socket, _)) => admit(Stream::new(socket), state, &mut busy).await,
            Err(error) => recover(&error).await,
        }
    }
}

/// Serves a connection at once as far as it can be: the request is usually there. What has to wait becomes a task.
async fn admit(stream: Stream, state: &Arc<LaunchState>, busy: &mut BusyLog) {
    let Ok(peer) = Peer::of(&stream) else { return };
    let relation = state.policy.load().relation(peer);
    let Some(place) = find_place(&state.places, state, peer, relation) else {
        return turn_away(stream, state, peer, relation, busy);
    };
    let mut launch = Box::pin(serve_connection(stream, peer, place, Arc::clone(state)));
    let waits = poll_fn(|context| Poll::Ready(launch.as_mut().poll(context).is_pending()));
    if waits.await {
        tokio::spawn(launch);
    }
}

/// A place, perhaps that of an answer that is read by now.
fn find_place(places: &Arc<Places>, state: &LaunchState, peer: Peer, relation: Relation) -> Option<Place> {
    let place = places.take(peer.uid, relation);
    if place.is_none() && state.unread.make_room(&state.metrics) {
        return places.take(peer.uid, relation);
    }
    place
}

/// Refuses a launch, and says so unless too many do not read even that.
fn turn_away(stream: Stream, state: &LaunchState, peer: Peer, relation: Relation, busy: &mut BusyLog) {
    let refusal = Refusal::busy(peer.uid);
    if let Some(place) = find_place(&state.turned_away, state, peer, relation) {
        send_refusal(&stream, &refusal);
        state.unread.keep(stream, peer, place, Content::Harmless, &state.metrics);
    }
    state.metrics.launch_refused(refusal.reason());
    busy.note(peer);
}

async fn recover(error: &io::Error) {
    let transient = [Errno::ECONNABORTED, Errno::EINTR].map(|errno| Some(errno as i32));
    if !transient.contains(&error.raw_os_error()) {
        error!(%error, "a launch cannot be accepted; if descriptors are short, raise LimitNOFILE=");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// How many were turned away since the last line about it.
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
