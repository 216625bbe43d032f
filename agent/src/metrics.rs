//! Counters and histograms, served in the Prometheus text format by the admin socket.
//!
//! Each is incremented at its event; gauges are computed on request from a [`Status`](crate::status::Status). Labels are words of
//! this program, present from the start at 0, never text of a peer or of the control plane.

use std::fmt;
use std::time::Instant;

use devbox_launch_proto::ErrorCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::memory::Loss;

/// The media type of [`Metrics::text`]: OpenMetrics 1.0.0, section 4.1, which Prometheus reads.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "devbox_secretsd";
/// Upper ends of the buckets of latencies, in seconds. The promise is one second from the write; this is the daemon's share.
const LATENCY_BUCKETS: [f64; 11] = [0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

type ByWord = Family<[(&'static str, &'static str); 1], Counter>;

/// The reasons that other parts count by. Each part keeps its own list; here each word gets a counter at 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reasons {
    pub withdrawals: &'static [&'static str],
    pub inline: &'static [&'static str],
    /// Reasons why units' credentials are refused, apart from [`Loss`].
    pub credential_refusals: &'static [&'static str],
    pub sync_failures: &'static [&'static str],
}

/// The daemon's counters. Counting does not allocate.
pub(crate) struct Metrics {
    registry: Registry,
    launches: Counter,
    launch_refusals: ByWord,
    abandoned: Counter,
    withdrawn: ByWord,
    inline: ByWord,
    credentials: Counter,
    credential_refusals: ByWord,
    polls: ByWord,
    sync_failures: ByWord,
    renewals: Counter,
    poll_latency: Histogram,
    revocation_latency: Histogram,
}

impl Default for Metrics {
    /// A counter of [`Reasons`] appears at its first event.
    fn default() -> Self {
        Self::new(Reasons::default())
    }
}

impl Metrics {
    #[must_use]
    pub(crate) fn new(reasons: Reasons) -> Self {
        let words = |words: &'static [&'static str]| words.iter().copied();
        let losses = Loss::ALL.map(Loss::word);
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            launches: Counter::default(),
            launch_refusals: at_zero("reason", launch_refusals()),
            abandoned: Counter::default(),
            withdrawn: at_zero("reason", words(reasons.withdrawals)),
            inline: at_zero("reason", words(reasons.inline)),
            credentials: Counter::default(),
            credential_refusals: at_zero("reason", words(reasons.credential_refusals).chain(losses)),
            polls: at_zero("answer", ["changed", "unchanged"]),
            sync_failures: at_zero("kind", words(reasons.sync_failures).chain(["join", "renewal"])),
            renewals: Counter::default(),
            poll_latency: Histogram::new(LATENCY_BUCKETS),
            revocation_latency: Histogram::new(LATENCY_BUCKETS),
        };
        metrics.register();
        metrics
    }
}

/// Error codes, and losses instead of a code if there are no secrets, because they are more exact. [`ErrorCode::NotReady`] is
/// always a loss.
fn launch_refusals() -> impl Iterator<Item = &'static str> {
    let codes = ErrorCode::ALL.into_iter().filter(|code| *code != ErrorCode::NotReady);
    codes.map(ErrorCode::word).chain(Loss::ALL.map(Loss::word))
}

fn at_zero(label: &'static str, words: impl IntoIterator<Item = &'static str>) -> ByWord {
    let family = ByWord::default();
    for word in words {
        drop(family.get_or_create(&[(label, word)]));
    }
    family
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("launches", "Launches that got variables or names", self.launches.clone());
        registry.register("launch_refusals", "Launches refused, by reason", self.launch_refusals.clone());
        registry.register(
            "launches_abandoned",
            "Launches whose launcher disconnected or was too slow",
            self.abandoned.clone(),
        );
        registry.register(
            "launches_withdrawn",
            "Answers whose variables were wiped before they were read, by reason",
            self.withdrawn.clone(),
        );
        registry.register(
            "launches_inline",
            "Launches answered by value instead of by descriptor, by reason",
            self.inline.clone(),
        );
        registry.register("credentials", "Credentials given to units", self.credentials.clone());
        registry.register(
            "credential_refusals",
            "Credentials refused, by reason",
            self.credential_refusals.clone(),
        );
        registry.register("polls", "Successful polls, by answer", self.polls.clone());
        registry.register(
            "sync_failures",
            "Failed attempts to synchronize, by kind",
            self.sync_failures.clone(),
        );
        registry.register("certificate_renewals", "New certificates in use", self.renewals.clone());
        let poll = "From the arrival of a changed bundle until its values are opened in locked memory";
        registry.register_with_unit("poll_latency", poll, Unit::Seconds, self.poll_latency.clone());
        let revocation = "From the arrival of an answer that replaces or revokes secrets until their pages are wiped, which \
                          waits for the last launch that reads them";
        let latency = self.revocation_latency.clone();
        registry.register_with_unit("revocation_latency", revocation, Unit::Seconds, latency);
    }

    pub(crate) fn launch_served(&self) {
        self.launches.inc();
    }

    /// Counts a refused launch. `reason` is a word of an [`ErrorCode`] or of a [`Loss`].
    pub(crate) fn launch_refused(&self, reason: &'static str) {
        self.launch_refusals.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn launch_abandoned(&self) {
        self.abandoned.inc();
    }

    pub(crate) fn launch_withdrawn(&self, reason: &'static str) {
        self.withdrawn.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn launch_inline(&self, reason: &'static str) {
        self.inline.get_or_create(&[("reason", reason)]).inc();
    }

    #[must_use]
    pub(crate) fn launches(&self) -> [u64; 3] {
        let refusals = |word| self.launch_refusals.get_or_create(&[("reason", word)]).get();
        // A set, because a word that is in both lists is one counter.
        let words: std::collections::BTreeSet<_> = launch_refusals().collect();
        [self.launches.get(), words.into_iter().map(refusals).sum(), self.abandoned.get()]
    }

    pub(crate) fn credential_served(&self) {
        self.credentials.inc();
    }

    pub(crate) fn credential_refused(&self, reason: &'static str) {
        self.credential_refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts an "unchanged" answer. Its duration is the server's choice and not a latency.
    pub(crate) fn unchanged(&self) {
        self.polls.get_or_create(&[("answer", "unchanged")]).inc();
    }

    /// Counts an answer of `arrived` with a bundle, which is decrypted in locked memory now.
    pub(crate) fn opened(&self, arrived: Instant) {
        self.polls.get_or_create(&[("answer", "changed")]).inc();
        self.poll_latency.observe(arrived.elapsed().as_secs_f64());
    }

    /// Returns the call that observes how long a revocation took: to be made when the pages are wiped that the answer of
    /// `arrived` replaces or revokes.
    pub(crate) fn revoked(&self, arrived: Instant) -> impl FnOnce() + Send + Sync + use<> {
        let latency = self.revocation_latency.clone();
        move || latency.observe(arrived.elapsed().as_secs_f64())
    }

    /// Counts an attempt to synchronise that failed: one of [`Reasons::sync_failures`], `join` or `renewal`.
    pub(crate) fn sync_failed(&self, kind: &'static str) {
        self.sync_failures.get_or_create(&[("kind", kind)]).inc();
    }

    pub(crate) fn certificate_renewed(&self) {
        self.renewals.inc();
    }

    /// All counters, and `gauges`, as [`MEDIA_TYPE`].
    ///
    /// # Errors
    /// Never: writing to a string does not fail.
    pub(crate) fn text(&self, gauges: impl Collector) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let mut present = Registry::with_prefix(PREFIX);
        present.register_collector(Box::new(gauges));
        encode_registry(&mut text, &present)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
#[derive(Debug)]
pub(crate) struct NoGauges;

#[cfg(test)]
impl Collector for NoGauges {
    fn encode(&self, _: prometheus_client::encoding::DescriptorEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_present_from_the_start() {
        let reasons = Reasons {
            withdrawals: &["deadline"],
            inline: &["in_flight"],
            credential_refusals: &["not_systemd"],
            sync_failures: &["rollback"],
        };
        let text = Metrics::new(reasons).text(NoGauges).unwrap();
        for line in [
            "devbox_secretsd_launches_total 0\n",
            "devbox_secretsd_launch_refusals_total{reason=\"denied\"} 0\n",
            "devbox_secretsd_launch_refusals_total{reason=\"revoked\"} 0\n",
            "devbox_secretsd_launches_withdrawn_total{reason=\"deadline\"} 0\n",
            "devbox_secretsd_launches_inline_total{reason=\"in_flight\"} 0\n",
            "devbox_secretsd_credential_refusals_total{reason=\"not_systemd\"} 0\n",
            "devbox_secretsd_sync_failures_total{kind=\"rollback\"} 0\n",
            "devbox_secretsd_polls_total{answer=\"changed\"} 0\n",
            "devbox_secretsd_revocation_latency_seconds_count 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_reason_in_two_lists_is_one_counter() {
        let metrics = Metrics::default();
        metrics.launch_refused(Loss::Stale.word());
        metrics.launch_refused(ErrorCode::Busy.word());
        assert_eq!(metrics.launches(), [0, 2, 0]);
    }
}
