//! The state of the synchronisation, for `status`. Contains no secret.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::identity::{Identity, Validity};
use crate::metrics::Metrics;
use crate::sys::{BootTime, now_ms};

/// A failure to synchronise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error with its causes, on one line.
    pub message: String,
    /// The first failure since the last success, in milliseconds since the epoch.
    pub since_ms: i64,
}

/// How long the first steps took, in milliseconds; `None` for a step not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// From the start of the first attempt to join until there was a certificate.
    pub enroll_ms: Option<f64>,
    /// From the first request for a bundle that succeeded until its values were in locked memory.
    pub fetch_ms: Option<f64>,
}

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// This devbox's id; `None` before it has joined.
    pub devbox_id: Option<String>,
    /// The validity of the certificate in use.
    pub certificate: Option<Validity>,
    /// Time since the control plane last confirmed the secrets.
    pub last_sync_age: Option<Duration>,
    /// The current failure.
    pub failure: Option<Failure>,
    /// How long the first steps took.
    pub timings: Timings,
}

/// Written by the synchronisation, read by `status`.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    devbox_id: Option<String>,
    certificate: Option<Validity>,
    last_sync: Option<BootTime>,
    failure: Option<Failure>,
    timings: Timings,
}

impl Progress {
    #[must_use]
    pub(crate) fn counted_in(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    #[must_use]
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn joined_in(&self, duration: Duration) {
        self.state().timings.enroll_ms = Some(milliseconds(duration));
    }

    /// Records how long fetching the first bundle took. Later calls are ignored.
    pub(crate) fn fetched_in(&self, duration: Duration) {
        self.state().timings.fetch_ms.get_or_insert(milliseconds(duration));
    }

    pub(crate) fn identified(&self, identity: &Identity) {
        let mut state = self.state();
        state.devbox_id = Some(identity.devbox_id().to_owned());
        state.certificate = Some(identity.validity());
        self.changes.send_replace(());
    }

    pub(crate) fn forgotten(&self) {
        let mut state = self.state();
        state.certificate = None;
        state.failure = None;
    }

    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        state.last_sync = Some(BootTime::now());
        state.failure = None;
        self.changes.send_replace(());
    }

    /// Records a failure. Returns whether it differs from the last one since a success, so that each is logged once.
    pub(crate) fn failed(&self, message: String) -> bool {
        let mut state = self.state();
        let is_news = state.failure.as_ref().is_none_or(|failure| failure.message != message);
        let since_ms = state.failure.take().map_or_else(now_ms, |failure| failure.since_ms);
        state.failure = Some(Failure { message, since_ms });
        self.changes.send_replace(());
        is_news
    }

    /// Wakes after each poll and each new certificate.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The state right now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let now = BootTime::now();
        Snapshot {
            devbox_id: state.devbox_id.clone(),
            certificate: state.certificate,
            last_sync_age: state.last_sync.map(|at| now.since(at)),
            failure: state.failure.clone(),
            timings: state.timings,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_has_the_time_of_its_first_and_is_news_once() {
        let progress = Progress::default();
        assert!(progress.failed("down".to_owned()));
        let first = progress.snapshot().failure.unwrap();
        assert!(!progress.failed("down".to_owned()));
        assert!(progress.failed("refused".to_owned()));
        let last = progress.snapshot().failure.unwrap();
        assert_eq!((last.message.as_str(), last.since_ms), ("refused", first.since_ms));
        progress.succeeded();
        assert_eq!(progress.snapshot().failure, None);
        assert!(progress.snapshot().last_sync_age.is_some());
    }
}
