//! Times of the poll: how long the server may hold a request, and until when its answer counts.

use std::time::{Duration, Instant};

use crate::memory::BootTime;

/// Times and bounds of the poll.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long the server may hold a request while nothing changes.
    pub poll_wait: Duration,
    /// How long secrets are served after its last answer.
    pub max_stale: Duration,
}

impl Pace {
    /// A held request must not outlast the lease that its answer renews.
    pub(super) fn wait(&self) -> Duration {
        self.poll_wait.min(self.max_stale / 2)
    }
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) at: Instant,
    boot_time: BootTime,
    /// How long it may be held.
    pub(super) wait: Duration,
}

impl Asked {
    pub(super) fn now(wait: Duration) -> Self {
        Self { at: Instant::now(), boot_time: BootTime::now(), wait }
    }

    /// The latest time that the answer, which is here, can be of: it may have waited unread while the machine slept.
    pub(super) fn answered(self) -> BootTime {
        BootTime::now().min(self.boot_time + self.wait)
    }
}
