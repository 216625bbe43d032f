//! One launch, from its request to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use devbox_launch_proto::Answer;
use tokio::net::UnixStream;
use tokio::select;
use tokio::time::timeout;

use super::LaunchState;
use super::answer::{Reply, send_refusal};
use super::failure::Failure;
use super::places::Place;
use super::refusal::Refusal;
use super::report::{Served, report};
use super::request::Request;
use super::selection::select as select_variables;
use crate::memory::{Generation, Loss};
use crate::peer::Peer;

/// A request has to be there in this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// An answer has to be taken in this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for the first secrets, whatever the request says.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// Serves one connection, and says how it ended. The place is free when it has.
pub(super) async fn serve_connection(stream: UnixStream, peer: Peer, place: Place, state: Arc<LaunchState>) {
    let started = Instant::now();
    let outcome = launch(&stream, peer, &state).await;
    if let Err(Failure::Refused(refusal)) = &outcome {
        send_refusal(&stream, refusal);
    }
    report(&state.counters, peer, started.elapsed(), &outcome);
    drop((stream, place));
}

async fn launch(stream: &UnixStream, peer: Peer, state: &LaunchState) -> Result<Served, Failure> {
    let request = timeout(REQUEST_DEADLINE, Request::read(stream))
        .await
        .map_err(|_| Failure::Slow("its request did not come in time"))??;
    if state.policy.load().grants(peer).is_none() {
        return Err(Refusal::no_rule(peer).into());
    }
    let wait = Duration::from_millis(request.header.wait_ms.into());
    let generation = secrets(stream, state, wait).await?;
    timeout(ANSWER_DEADLINE, answer(stream, peer, state, &request, &generation))
        .await
        .map_err(|_| Failure::Slow("it does not take its answer"))?
}

async fn answer(
    stream: &UnixStream,
    peer: Peer,
    state: &LaunchState,
    request: &Request,
    generation: &Generation,
) -> Result<Served, Failure> {
    // Not the policy of before the wait: it may have been reloaded.
    let policy = state.policy.load_full();
    let grants = policy.grants(peer).ok_or_else(|| Refusal::no_rule(peer))?;
    let selection = select_variables(generation, grants, peer, request.body())?;
    let reply = Reply { generation, selection: &selection };
    let flags = request.header.flags;
    let answer: Answer = if flags.list {
        reply.send_names(stream).await?
    } else {
        reply.send(stream, flags.inline, &state.pool, &state.vault).await?
    };
    Ok(Served::new(answer, &reply))
}

/// The current secrets. Waits for the first ones, as long as the request allows and the peer is there.
async fn secrets(
    stream: &UnixStream,
    state: &LaunchState,
    wait: Duration,
) -> Result<Arc<Generation>, Failure> {
    match state.vault.current() {
        Err(unavailable) if unavailable.loss == Loss::Starting && !wait.is_zero() => {}
        held => return held.map_err(|unavailable| Refusal::from(unavailable).into()),
    }
    select! {
        found = timeout(wait.min(MAX_WAIT), first_secrets(state)) => match found {
            Ok(found) => found,
            Err(_) => state.vault.current().map_err(|unavailable| Refusal::from(unavailable).into()),
        },
        () = hung_up(stream) => Err(Failure::Gone),
    }
}

async fn first_secrets(state: &LaunchState) -> Result<Arc<Generation>, Failure> {
    let mut changes = state.vault.changes();
    loop {
        match state.vault.current() {
            Err(unavailable) if unavailable.loss == Loss::Starting => {}
            held => return held.map_err(|unavailable| Refusal::from(unavailable).into()),
        }
        // The vault outlives its launches, so this is a change and never the end of the channel.
        let _ = changes.changed().await;
    }
}

/// Ends when the peer closes its end, or sends what no launcher sends.
async fn hung_up(stream: &UnixStream) {
    let would_block = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    while stream.readable().await.is_ok() && stream.try_read(&mut [0]).is_err_and(|e| would_block(&e)) {}
}
