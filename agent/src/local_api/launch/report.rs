//! One audit event and one count for each launch. With names of variables, never with values.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use devbox_launch_proto::{Answer, ErrorCode};
use tracing::{Level, enabled, warn};

use super::answer::{Reply, WhyInline};
use super::refusal::{Failure, Refusal};
use super::unread::Why;
use crate::access::authorize::Decision;
use crate::access::peer::{Facts, Peer, UnitName};
use crate::metrics::Metrics;
use crate::telemetry::audit::{Kind, TARGET, audit};

/// Shortest interval between log lines about many launches, so that a flood does not fill the log.
pub(super) const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Served {
    answer: Answer,
    count: usize,
    revision: u64,
    /// For the audit only.
    names: Cow<'static, str>,
}

impl Served {
    pub(super) fn new(answer: Answer, reply: &Reply<'_>) -> Self {
        let audited = enabled!(target: TARGET, Level::INFO);
        let names = if audited { reply.selection.summary(reply.generation) } else { Cow::Borrowed("") };
        let count = reply.selection.count(reply.generation);
        Self { answer, count, revision: reply.generation.revision(), names }
    }
}

/// Counts a launch and audits its outcome. `decision`: the last one about its process, if there was
/// one.
pub(super) fn report(
    metrics: &Metrics,
    peer: Peer,
    decision: Option<&Decision>,
    duration: Duration,
    outcome: &Result<Served, Failure>,
) {
    let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let facts = decision.map_or_else(|| Cow::Owned(Facts::of(peer)), |made| Cow::Borrowed(made.facts()));
    let facts = &*facts;
    match outcome {
        Ok(served) => {
            metrics.launch_served();
            report_served(facts, decision, served, duration_us);
        }
        Err(Failure::Refused(refusal)) => {
            metrics.launch_refused(refusal.reason());
            report_refused(facts, refusal, duration_us);
        }
        Err(Failure::Slow(reason)) => {
            metrics.launch_abandoned();
            report_abandoned(facts, reason, duration_us);
        }
        Err(Failure::Outdated) => {
            metrics.launch_abandoned();
            report_abandoned(facts, "its secrets changed while it was answered", duration_us);
        }
        Err(Failure::Gone) => {
            metrics.launch_abandoned();
            report_abandoned(facts, "its launcher has gone", duration_us);
        }
    }
}

fn report_served(facts: &Facts, decision: Option<&Decision>, served: &Served, duration_us: u64) {
    let (unit, executable) = known(facts);
    audit!(
        info,
        Kind::Launch,
        peer = facts.peer,
        unit,
        executable,
        names = &*served.names,
        count = served.count,
        revision = served.revision,
        rules = decision.map(|made| display(made.rules())),
        answer = word(served.answer),
        duration_us,
        "launch"
    );
}

fn report_refused(facts: &Facts, refusal: &Refusal, duration_us: u64) {
    let (unit, executable) = known(facts);
    let reason = refusal.text();
    let rules = refusal.reasons();
    // In the message too, because journalctl shows only that by default.
    let why = rules.unwrap_or(reason);
    audit!(
        warn,
        Kind::Refusal,
        peer = facts.peer,
        unit,
        executable,
        code = refusal.code.word(),
        names = refusal.name(),
        rules,
        reason,
        duration_us,
        "launch refused: {why}"
    );
}

fn report_abandoned(facts: &Facts, reason: &str, duration_us: u64) {
    let (unit, executable) = known(facts);
    audit!(
        info,
        Kind::Abandoned,
        peer = facts.peer,
        unit,
        executable,
        reason,
        duration_us,
        "launch abandoned: {reason}"
    );
}

/// Counts and logs an answer that is withdrawn unread.
pub(super) fn report_withdrawn(metrics: &Metrics, peer: Peer, why: Why) {
    metrics.launch_withdrawn(why.word());
    report_abandoned(&Facts::of(peer), why.reason(), 0);
}

/// Counts an inline answer, and logs it if the kernel is the reason: other programs of the daemon's
/// user may be at fault.
pub(super) fn report_inline(metrics: &Metrics, seldom: &Seldom, why: WhyInline) {
    metrics.launch_inline(why.word());
    if why == WhyInline::InFlight && seldom.is_due() {
        warn!(
            "launches are answered by value: the kernel sends no descriptor while more than RLIMIT_NOFILE of this user's are \
             unread; raise LimitNOFILE=, and see which launchers do not read"
        );
    }
}

/// A log line that is due once a second at most.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Audits `times` launches without a slot by one event, so that a flood does not fill the log.
/// `peer`: the last of them.
pub(super) fn report_busy(peer: Peer, times: u64) {
    audit!(
        warn,
        Kind::Refusal,
        peer = peer,
        code = ErrorCode::Busy.word(),
        times,
        "launches refused: their user has its share"
    );
}

/// The unit and the executable. Destructured, so that a new fact is audited too.
fn known(facts: &Facts) -> (Option<&str>, Option<&str>) {
    let Facts { peer: _, unit, executable } = facts;
    let unit = unit.as_ref().ok().and_then(Option::as_ref).map(UnitName::as_str);
    (unit, executable.as_ref().ok().map(|executable| executable.path.as_str()))
}

const fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Descriptor => "descriptor",
        Answer::Inline => "inline",
        Answer::Names => "names",
        Answer::Error(_) => "error",
    }
}
