//! A status as gauges. Unknown values are left out.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;

use super::{State, Status};

impl Collector for Status {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauges = Gauges(encoder);
        self.encode_state(&mut gauges)?;
        self.encode_secrets(&mut gauges)?;
        self.encode_sync(&mut gauges)?;
        self.encode_process(&mut gauges)
    }
}

impl Status {
    fn encode_state(&self, gauges: &mut Gauges<'_>) -> fmt::Result {
        let states = Family::<[(&str, &str); 1], Gauge>::default();
        for state in State::ALL {
            states.get_or_create(&[("state", state.word())]).set(i64::from(state == self.state));
        }
        let help = "1 for the daemon's state, 0 for the others";
        states.encode(gauges.0.encode_descriptor("state", help, None, MetricType::Gauge)?)
    }

    fn encode_secrets(&self, gauges: &mut Gauges<'_>) -> fmt::Result {
        gauges.some("revision", "The revision in memory", self.revision)?;
        gauges.one("names", "Variables in memory", self.names)?;
        gauges.some(
            "revision_age_seconds",
            "Since this process loaded the revision",
            self.revision_age.map(|age| age.as_secs_f64()),
        )?;
        gauges.some(
            "lease_left_seconds",
            "Until the secrets are wiped unless the control plane responds",
            self.lease_left.map(|left| left.as_secs_f64()),
        )?;
        let help = "Locked memory of values: the generation, pages prepared for launches, and unread answers";
        gauges.one("locked_bytes", help, self.memory.bytes_locked as u64)
    }

    fn encode_sync(&self, gauges: &mut Gauges<'_>) -> fmt::Result {
        gauges.some(
            "last_sync_age_seconds",
            "Since the last successful response of the control plane",
            self.last_sync_age.map(|age| age.as_secs_f64()),
        )?;
        let help = "1 if the last attempt to synchronize failed";
        gauges.one("sync_failing", help, u64::from(self.last_error.is_some()))?;
        gauges.some(
            "certificate_not_after_timestamp_seconds",
            "Expiry of the devbox's certificate, in seconds since 1970",
            self.certificate_expires_ms.map(seconds),
        )
    }

    fn encode_process(&self, gauges: &mut Gauges<'_>) -> fmt::Result {
        gauges.one(
            "launch_connections",
            "Connections of launchers right now",
            self.launches.connections as u64,
        )?;
        let help = "Threads that inspect a launcher's process right now, stuck ones included";
        gauges.one("look_ups", help, self.launches.examinations as u64)?;
        let help = "When the daemon started, in seconds since 1970";
        gauges.one("start_timestamp_seconds", help, seconds(self.process.started_ms))?;
        let help = "Audit events that neither the journal nor standard error took";
        gauges.count("audit_dropped", help, self.process.audit_dropped)?;
        let help = "Other lines of the log that standard error did not take";
        gauges.count("log_dropped", help, self.process.log_dropped)?;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        build.encode(gauges.0.encode_descriptor("build", "The program", None, MetricType::Info)?)
    }
}

struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn one<N: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: N) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn some<N: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: Option<N>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.one(name, help, value))
    }
}

/// Milliseconds as seconds; 0 for times before 1970.
fn seconds(ms: i64) -> f64 {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default()).as_secs_f64()
}
