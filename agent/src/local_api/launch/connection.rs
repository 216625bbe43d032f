//! One launch, from its request to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use devbox_launch_proto::MAX_WAIT_MS;
use tokio::select as first_of;
use tokio::time::timeout;

use super::LaunchState;
use super::answer::{Reply, end, send_refusal};
use super::refusal::{Failure, Refusal};
use super::report::{Served, report};
use super::selection::select;
use super::slots::LaunchSlot;
use super::stream::{Request, Stream, receive};
use super::unread::Content;
use crate::access::authorize::{Decision, authorize};
use crate::access::peer::{Peer, Process};
use crate::memory::{Generation, Loss};
use crate::sys::BootTime;

/// Time for the request, from the connection's acceptance.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Serves one connection. The slot is free when its answer is read.
pub(super) async fn serve_connection(
    stream: Stream,
    peer: Peer,
    mut slot: LaunchSlot,
    state: Arc<LaunchState>,
) {
    let started = Instant::now();
    let mut launch =
        Launch { stream: &stream, peer, accepted: BootTime::now(), state: &state, decision: None };
    let (outcome, content) = match launch.run(&mut slot).await {
        Ok((served, content)) => (Ok(served), content),
        Err(failure) => (Err(failure), Content::Harmless),
    };
    match &outcome {
        Ok(_) => {}
        Err(Failure::Refused(refusal)) => send_refusal(&stream, refusal),
        Err(Failure::Gone | Failure::Outdated | Failure::Slow(_)) => end(&stream),
    }
    // Audited after the answer is sent, so that no launch waits for the audit.
    report(&state.metrics, peer, launch.decision.as_ref(), started.elapsed(), &outcome);
    // The slot goes along: an unread answer counts against its user until the launcher reads it.
    state.unread.keep(stream, peer, slot, content, &state.metrics);
}

struct Launch<'a> {
    stream: &'a Stream,
    peer: Peer,
    accepted: BootTime,
    state: &'a LaunchState,
    /// The last decision, whatever came of it: the audit reports its facts.
    decision: Option<Decision>,
}

impl Launch<'_> {
    async fn run(&mut self, slot: &mut LaunchSlot) -> Result<(Served, Content), Failure> {
        let request = timeout(REQUEST_DEADLINE, Request::read(self.stream))
            .await
            .map_err(|_| Failure::Slow("its request did not come in time"))??;
        // Before any word about the secrets, and before any waiting: an unauthorized process gets neither.
        self.decide().await?;
        let generation = match self.state.freshness.current(&self.state.vault).await {
            Err(unavailable) if is_held(&request, unavailable.loss) => {
                drop(self.wait_for_secrets(&request).await?);
                // Rules may have been reloaded meanwhile, and the process may run another program by now.
                self.decide().await?;
                // Examining the process may have taken seconds, in which a secret was deleted.
                self.state.freshness.current(&self.state.vault).await.map_err(Refusal::from)?
            }
            held => held.map_err(Refusal::from)?,
        };
        // A launcher that does not read must not hold its slot and its pages for ever.
        timeout(ANSWER_DEADLINE, self.answer_current(slot, &request, generation))
            .await
            .map_err(|_| Failure::Slow("it does not take its answer"))?
    }

    /// Answers with secrets that are current when the answer is sent.
    async fn answer_current(
        &self,
        slot: &mut LaunchSlot,
        request: &Request,
        mut generation: Arc<Generation>,
    ) -> Result<(Served, Content), Failure> {
        loop {
            match self.answer(slot, request, &generation).await {
                Err(Failure::Outdated) => slot.release(),
                answered => return answered,
            }
            // Dropped before the wait: a reference held here would keep replaced pages from being
            // wiped.
            drop(generation);
            generation = self.state.freshness.current(&self.state.vault).await.map_err(Refusal::from)?;
        }
    }

    async fn decide(&mut self) -> Result<(), Refusal> {
        // One snapshot: a reload in the middle of a decision must not mix two sets of rules.
        let policy = self.state.policy.load_full();
        let process = || Process::of_peer(self.stream, self.peer, self.accepted);
        let decision = authorize(policy, &self.state.examiner, self.peer, process).await;
        let decision = self.decision.insert(decision);
        if decision.is_denial() { Err(Refusal::no_rule(decision)) } else { Ok(()) }
    }

    async fn answer(
        &self,
        slot: &mut LaunchSlot,
        request: &Request,
        generation: &Arc<Generation>,
    ) -> Result<(Served, Content), Failure> {
        // Every path to this point has decided; without a decision, fail closed.
        let decision = self.decision.as_ref().ok_or(Failure::Gone)?;
        let selection = select(generation, decision, request.body())?;
        let reply = Reply { generation, selection: &selection };
        let flags = request.header.flags;
        let (answer, content) = if flags.list {
            (reply.send_names(self.stream, &self.state.vault).await?, Content::Harmless)
        } else {
            // Checked before any page is locked: a refused launch costs no locked memory.
            selection.check_len(generation)?;
            reply.send(self.stream, flags.inline, slot, self.state).await?
        };
        Ok((Served::new(answer, &reply), content))
    }

    /// Waits for secrets, as long as the request allows and the peer is there.
    async fn wait_for_secrets(&self, request: &Request) -> Result<Arc<Generation>, Failure> {
        // Capped, because the number comes from the launcher.
        let wait = Duration::from_millis(request.header.wait_ms.min(MAX_WAIT_MS).into());
        first_of! {
            found = timeout(wait, secrets(self.state, request)) => match found {
                Ok(found) => found,
                Err(_) => {
                    let held = self.state.freshness.current(&self.state.vault).await;
                    held.map_err(|unavailable| Refusal::from(unavailable).into())
                }
            },
            () = hung_up(self.stream) => Err(Failure::Gone),
        }
    }
}

/// Whether a request waits until `loss` has passed. A stopping daemon lets none wait, because its
/// successor will serve them.
fn is_held(request: &Request, loss: Loss) -> bool {
    let header = &request.header;
    header.wait_ms > 0
        && match loss {
            Loss::Starting | Loss::Quiesced => true,
            // Only a patient launch waits for the control plane; others fail at once.
            Loss::Stale => header.flags.patient,
            // Waiting helps none of these: an operator has to act, or a successor answers.
            Loss::Revoked | Loss::Cloned | Loss::Stopping => false,
        }
}

async fn secrets(state: &LaunchState, request: &Request) -> Result<Arc<Generation>, Failure> {
    // Subscribed before the first look, so that a change in between is not missed.
    let mut changes = state.vault.changes();
    loop {
        match state.freshness.current(&state.vault).await {
            Err(unavailable) if is_held(request, unavailable.loss) => {}
            held => return held.map_err(|unavailable| Refusal::from(unavailable).into()),
        }
        // The vault outlives its launches, so this is a change and never a closed channel.
        let _ = changes.changed().await;
    }
}

/// Returns when the peer closes its end, or sends bytes that no launcher sends.
async fn hung_up(stream: &Stream) {
    // An end, a byte or an error: in each case the launcher has gone.
    let _ = receive(stream, &mut [0]).await;
}
