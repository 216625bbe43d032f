//! Counters and gauges, served in the Prometheus text format by the admin listener.
//!
//! Labels are words of this program (routes, codes, statuses), never a caller's text.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devbox_secrets_common::log::stderr;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Upper ends of the buckets of every latency, in seconds. The promise of a revocation is one
/// second.
const LATENCY_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    /// `api` or `devbox`.
    pub(crate) listener: &'static str,
    /// The route's template, such as `/v1/secrets/{name}`; `none` if no route was found.
    pub(crate) route: &'static str,
    pub(crate) status: u16,
}

/// One refusal, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refused {
    /// `api` or `devbox`.
    pub(crate) listener: &'static str,
    /// The error's code, such as `devbox_shutdown`.
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    Done,
    Failed,
}

impl ReloadResult {
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// By listener and route.
type Durations = Family<[(&'static str, &'static str); 2], Histogram, fn() -> Histogram>;

/// The server's counters and gauges.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Durations,
    refusals: Family<Refused, Counter>,
    budget_refusals: Family<[(&'static str, &'static str); 1], Counter>,
    held: Gauge,
    bundles: Counter,
    enrolments: Counter,
    clones_refused: Counter,
    store_errors: Counter,
    connections: Family<[(&'static str, &'static str); 1], Gauge>,
    connections_refused: Family<[(&'static str, &'static str); 2], Counter>,
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    revocation: Histogram,
    certificate_end: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
    ca_end: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("devbox_secrets_server"),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            refusals: Family::default(),
            budget_refusals: Family::default(),
            held: Gauge::default(),
            bundles: Counter::default(),
            enrolments: Counter::default(),
            clones_refused: Counter::default(),
            store_errors: Counter::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            reloads: Family::default(),
            revocation: Histogram::new(LATENCY_BUCKETS),
            certificate_end: Family::default(),
            ca_end: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Answered requests, by route and status", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's header to its answer's, by route; a bundle request is held until there is something new",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("refusals", "Answers with an error, by its code", self.refusals.clone());
        registry.register(
            "budget_refusals",
            "Requests refused because a budget is used up, by the budget",
            self.budget_refusals.clone(),
        );
        registry.register("held_requests", "Bundle requests that wait for a change", self.held.clone());
        registry.register("bundles", "Bundles delivered", self.bundles.clone());
        registry.register("enrolments", "Join tokens redeemed", self.enrolments.clone());
        registry.register(
            "clones_refused",
            "Bundle requests refused because their identity is used or goes on elsewhere",
            self.clones_refused.clone(),
        );
        registry.register("store_errors", "Requests that the database failed", self.store_errors.clone());
        registry.register("connections", "Open connections, by listener", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections refused before their first request, by listener and reason",
            self.connections_refused.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        registry.register("reloads", "Reloads of the configuration, by result", self.reloads.clone());
        registry.register_with_unit(
            "revocation_latency",
            "From a committed write (or from noticing another program's) to the answer of the account's last held request",
            Unit::Seconds,
            self.revocation.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When a listener's certificate ends, in seconds since 1970",
            self.certificate_end.clone(),
        );
        registry.register(
            "ca_certificate_not_after_timestamp_seconds",
            "When the certificate of the devbox CA that issues ends, in seconds since 1970",
            self.ca_end.clone(),
        );
        registry.register_collector(Box::new(LostLogLines));
    }

    pub(crate) fn answered(&self, request: &Request) {
        self.requests.get_or_create(request).inc();
    }

    /// Counts how long an answer took.
    pub(crate) fn took(&self, listener: &'static str, route: &'static str, duration: Duration) {
        let labels = [("listener", listener), ("route", route)];
        self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Counts an answer that is an error.
    pub(crate) fn refused(&self, refused: &Refused) {
        self.refusals.get_or_create(refused).inc();
    }

    /// Counts a request that was refused for the sake of `budget`.
    pub(crate) fn over_budget(&self, budget: &'static str) {
        self.budget_refusals.get_or_create(&[("budget", budget)]).inc();
    }

    /// Counts a request that failed for the database's sake.
    pub(crate) fn store_failed(&self) {
        self.store_errors.inc();
    }

    /// Counts a connection, until the guard is dropped.
    #[must_use]
    pub(crate) fn connection_opened(&self, listener: &'static str) -> OpenConnection {
        let gauge = self.connections.get_or_create_owned(&[("listener", listener)]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Counts a connection that was closed before its first request, for `reason`.
    pub(crate) fn connection_refused(&self, listener: &'static str, reason: &'static str) {
        self.connections_refused.get_or_create(&[("listener", listener), ("reason", reason)]).inc();
    }

    /// Counts a reload of the configuration.
    pub(crate) fn reloaded(&self, result: ReloadResult) {
        self.reloads.get_or_create(&[("result", result.label())]).inc();
    }

    pub(crate) fn bundle_delivered(&self) {
        self.bundles.inc();
    }

    /// Counts a redeemed join token.
    pub(crate) fn devbox_enrolled(&self) {
        self.enrolments.inc();
    }

    /// Counts a bundle request whose identity is elsewhere.
    pub(crate) fn clone_refused(&self) {
        self.clones_refused.inc();
    }

    /// A bundle request begins to wait.
    pub(crate) fn request_held(&self) {
        self.held.inc();
    }

    /// A bundle request waits no more.
    pub(crate) fn request_answered(&self) {
        self.held.dec();
    }

    /// The last of an account's held requests was answered `latency` after a change.
    pub(crate) fn all_answered(&self, latency: Duration) {
        self.revocation.observe(latency.as_secs_f64());
    }

    /// A listener serves with a certificate that ends then.
    pub(crate) fn certificate_ends(&self, listener: &'static str, not_after: SystemTime) {
        self.certificate_end.get_or_create(&[("listener", listener)]).set(seconds_since_epoch(not_after));
    }

    /// The devbox CA that issues has a certificate that ends then.
    pub(crate) fn ca_ends(&self, not_after: SystemTime) {
        self.ca_end.set(seconds_since_epoch(not_after));
    }

    /// All of them, in the OpenMetrics text format 1.0.0, which Prometheus reads.
    ///
    /// # Errors
    /// Writing to a string cannot fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// How many changes were answered to the last held request.
    #[cfg(test)]
    pub(crate) fn revocations(&self) -> u64 {
        let text = self.text().unwrap();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("devbox_secrets_server_revocation_latency_seconds_count "));
        count.unwrap().parse().unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Log lines that were dropped; the queue in front of stderr counts them.
#[derive(Debug)]
struct LostLogLines;

impl Collector for LostLogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lost = ConstCounter::new(stderr::writer().lost());
        let help = "Lines of the log that were dropped because standard error took none";
        lost.encode(encoder.encode_descriptor("log_lines_lost", help, None, lost.metric_type())?)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn seconds_since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.answered(&Request { listener: "api", route: "/v1/secrets", status: 200 });
        metrics.refused(&Refused { listener: "devbox", reason: "devbox_shutdown" });
        metrics.request_held();
        let text = metrics.text().unwrap();
        for line in [
            "devbox_secrets_server_requests_total{listener=\"api\",route=\"/v1/secrets\",status=\"200\"} 1\n",
            "devbox_secrets_server_refusals_total{listener=\"devbox\",reason=\"devbox_shutdown\"} 1\n",
            "devbox_secrets_server_held_requests 1\n",
            "devbox_secrets_server_revocation_latency_seconds_count 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
