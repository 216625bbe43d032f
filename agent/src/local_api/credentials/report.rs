//! One event of the audit and one count a credential. Names, but never values.

use tracing::{info, warn};

use super::address::Question;
use super::refusal::Refusal;
use crate::access::peer::{Peer, UnitName};
use crate::memory::Generation;
use crate::metrics::Metrics;
use crate::telemetry::audit::{Kind, TARGET};
use crate::telemetry::chain;

/// Told before a value is sent: none leaves unaudited. `rule`: the number of the one that grants it.
pub(super) fn report_served(
    metrics: &Metrics,
    peer: Option<Peer>,
    question: &Question,
    generation: &Generation,
    at: usize,
    rule: usize,
) {
    metrics.credential_served();
    info!(
        target: TARGET,
        event = Kind::Credential.word(),
        uid = peer.map(|peer| peer.uid),
        gid = peer.map(|peer| peer.gid),
        pid = peer.map(|peer| peer.pid),
        unit = question.unit.as_str(),
        credential = question.credential,
        names = generation.name(at),
        revision = generation.revision(),
        rules = rule,
        "credential served"
    );
}

pub(super) fn report_refused(metrics: &Metrics, peer: Option<Peer>, refusal: &Refusal) {
    metrics.credential_refused(refusal.word());
    let reason = chain(refusal);
    // In the message itself: a unit's start has no other place to say why it failed.
    warn!(
        target: TARGET,
        event = Kind::CredentialRefusal.word(),
        uid = peer.map(|peer| peer.uid),
        gid = peer.map(|peer| peer.gid),
        pid = peer.map(|peer| peer.pid),
        unit = refusal.unit().map(UnitName::as_str),
        code = refusal.word(),
        names = refusal.name(),
        reason,
        "credential refused: {reason}"
    );
}
