//! Measures until something is gone.

use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

/// Stops, and is counted, when it is dropped: kept beside what is to go, and dropped after it.
#[derive(Debug)]
pub struct Stopwatch {
    since: Instant,
    latency: Option<Histogram>,
}

impl Stopwatch {
    pub(super) fn since(since: Instant, latency: Histogram) -> Self {
        Self { since, latency: Some(latency) }
    }

    /// Ends it uncounted.
    pub fn forget(mut self) {
        self.latency = None;
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        if let Some(latency) = &self.latency {
            latency.observe(self.since.elapsed().as_secs_f64());
        }
    }
}
