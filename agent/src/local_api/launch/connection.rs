//! One launch, from its request to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use devbox_launch_proto::MAX_WAIT_MS;
use tokio::select;
use tokio::time::timeout;

use super::LaunchState;
use super::answer::{Reply, end, send_refusal};
use super::at_once::{Stream, receive};
use super::decision::Decision;
use super::failure::Failure;
use super::places::Place;
use super::refusal::Refusal;
use super::report::{Served, report};
use super::request::Request;
use super::unread::Content;
use crate::access::peer::{Facts, Peer, Process};
use crate::memory::{Generation, Loss};
use crate::sys::BootTime;

/// A request has to be there in this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// An answer has to be taken in this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Serves one connection, and says how it ended. The place is free when its answer is read.
pub(super) async fn serve_connection(stream: Stream, peer: Peer, mut place: Place, state: Arc<LaunchState>) {
    let started = Instant::now();
    let connection = Connection { stream: &stream, peer, accepted: BootTime::now() };
    let mut facts = Facts::of(peer);
    let (outcome, content) = match launch(&connection, &mut place, &state, &mut facts).await {
        Ok((served, content)) => (Ok(served), content),
        Err(failure) => (Err(failure), Content::Harmless),
    };
    match &outcome {
        Ok(_) => {}
        Err(Failure::Refused(refusal)) => send_refusal(&stream, refusal),
        Err(Failure::Gone | Failure::Slow(_)) => end(&stream),
    }
    report(&state.metrics, &facts, started.elapsed(), &outcome);
    state.unread.keep(stream, peer, place, content, &state.metrics);
}

/// One launcher.
struct Connection<'a> {
    stream: &'a Stream,
    peer: Peer,
    accepted: BootTime,
}

/// `seen` is what becomes known of the launcher on the way.
async fn launch(
    connection: &Connection<'_>,
    place: &mut Place,
    state: &LaunchState,
    seen: &mut Facts,
) -> Result<(Served, Content), Failure> {
    let request = timeout(REQUEST_DEADLINE, Request::read(connection.stream))
        .await
        .map_err(|_| Failure::Slow("its request did not come in time"))??;
    // Before anything is said of the secrets, and before any waiting: a stranger gets neither.
    let mut decision = decide(connection, state, seen).await?;
    let generation = match state.freshness.current(&state.vault).await {
        Err(unavailable) if is_held(&request, unavailable.loss) => {
            drop(wait_for_secrets(connection.stream, state, &request).await?);
            // Rules may have been reloaded meanwhile, and the process may be another program by now.
            decision = decide(connection, state, seen).await?;
            // The look at the process may have taken seconds, in which a secret was deleted.
            state.freshness.current(&state.vault).await.map_err(Refusal::from)?
        }
        held => held.map_err(Refusal::from)?,
    };
    timeout(ANSWER_DEADLINE, answer(connection.stream, place, state, &decision, &request, &generation))
        .await
        .map_err(|_| Failure::Slow("it does not take its answer"))?
}

async fn decide(
    connection: &Connection<'_>,
    state: &LaunchState,
    seen: &mut Facts,
) -> Result<Decision, Refusal> {
    let Connection { stream, peer, accepted } = *connection;
    let policy = state.policy.load_full();
    let facts = match policy.questions(peer) {
        None => Facts::of(peer),
        Some(questions) => match Process::of_peer(stream, peer, accepted) {
            Ok(process) => state.examiner.examine(peer, process, questions).await,
            Err(obstacle) => Facts::unknown(peer, obstacle),
        },
    };
    seen.clone_from(&facts);
    Decision::new(policy, facts)
}

async fn answer(
    stream: &Stream,
    place: &mut Place,
    state: &LaunchState,
    decision: &Decision,
    request: &Request,
    generation: &Arc<Generation>,
) -> Result<(Served, Content), Failure> {
    let selection = decision.select(generation, request.body())?;
    let reply = Reply { generation, selection: &selection };
    let flags = request.header.flags;
    let (answer, content) = if flags.list {
        (reply.send_names(stream).await?, Content::Harmless)
    } else {
        selection.check_len(generation)?;
        reply.send(stream, flags.inline, place, state).await?
    };
    Ok((Served::new(answer, &reply, decision.rules()), content))
}

/// Whether a request is held until `loss` has passed. A stopping daemon holds none: its launchers ask the next one.
fn is_held(request: &Request, loss: Loss) -> bool {
    let header = &request.header;
    header.wait_ms > 0
        && match loss {
            Loss::Starting | Loss::Quiesced => true,
            // A launch that did not ask to wait learns at once that the control plane is away.
            Loss::Stale => header.flags.patient,
            Loss::Revoked | Loss::Cloned | Loss::Stopping => false,
        }
}

/// Waits for secrets, as long as the request allows and the peer is there.
async fn wait_for_secrets(
    stream: &Stream,
    state: &LaunchState,
    request: &Request,
) -> Result<Arc<Generation>, Failure> {
    let wait = Duration::from_millis(request.header.wait_ms.min(MAX_WAIT_MS).into());
    select! {
        found = timeout(wait, secrets(state, request)) => match found {
            Ok(found) => found,
            Err(_) => state.freshness.current(&state.vault).await.map_err(|unavailable| Refusal::from(unavailable).into()),
        },
        () = hung_up(stream) => Err(Failure::Gone),
    }
}

async fn secrets(state: &LaunchState, request: &Request) -> Result<Arc<Generation>, Failure> {
    let mut changes = state.vault.changes();
    loop {
        match state.freshness.current(&state.vault).await {
            Err(unavailable) if is_held(request, unavailable.loss) => {}
            held => return held.map_err(|unavailable| Refusal::from(unavailable).into()),
        }
        // The vault outlives its launches, so this is a change and never the end of the channel.
        let _ = changes.changed().await;
    }
}

/// Ends when the peer closes its end, or sends what no launcher sends.
async fn hung_up(stream: &Stream) {
    // Whatever came, an end, a byte or an error: there is no launcher any more.
    let _ = receive(stream, &mut [0]).await;
}
