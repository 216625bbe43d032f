//! One audit event and one count for each credential. With names of variables, never with values.

use super::address::Question;
use super::refusal::Refusal;
use crate::access::peer::{Peer, UnitName};
use crate::memory::Generation;
use crate::metrics::Metrics;
use crate::telemetry::audit::{Kind, audit};
use crate::telemetry::chain;

/// Counts and audits a credential before its value is sent, so that none leaves unaudited. `rule`:
/// the number of the rule that grants it.
pub(super) fn report_served(
    metrics: &Metrics,
    peer: Option<Peer>,
    question: &Question,
    generation: &Generation,
    at: usize,
    rule: usize,
) {
    metrics.credential_served();
    audit!(
        info,
        Kind::Credential,
        maybe_peer = peer,
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
    // In the message itself, because a failed unit's status shows only that.
    audit!(
        warn,
        Kind::CredentialRefusal,
        maybe_peer = peer,
        unit = refusal.unit().map(UnitName::as_str),
        code = refusal.word(),
        names = refusal.name(),
        reason,
        "credential refused: {reason}"
    );
}
