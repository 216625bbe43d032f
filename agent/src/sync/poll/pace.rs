//! Times of the poll: how long the server may hold a request, and until when its answer counts.

use std::time::{Duration, Instant};

use crate::sys::BootTime;

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

    /// When the server had the request, if it was not to hold it.
    pub(super) fn confirmed(self) -> Option<BootTime> {
        self.wait.is_zero().then_some(self.boot_time)
    }

    /// When the server found nothing changed, for an answer that is here and says so: as soon as it had the request, or at the
    /// end of the wait. `None` for an answer in between, which may have waited unread.
    pub(super) fn unchanged_at(self) -> Option<BootTime> {
        let end = self.boot_time + self.wait;
        (BootTime::now() >= end).then_some(end)
    }
}
