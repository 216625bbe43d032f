//! Times of the poll: how long the server may hold a request, and when it has answered.

use std::time::{Duration, Instant};

use crate::sys::BootTime;

/// The configured times of the poll.
#[derive(Debug, Clone, Copy)]
pub struct PollTimes {
    /// How long the server may hold a request while nothing changes.
    pub poll_wait: Duration,
    /// How long secrets are served after the server's last answer.
    pub max_stale: Duration,
}

impl PollTimes {
    /// Half of the lease at most: a held request must not outlast the lease that its answer renews.
    pub(super) fn wait(&self) -> Duration {
        self.poll_wait.min(self.max_stale / 2)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SentRequest {
    pub(super) at: Instant,
    boot_time: BootTime,
    pub(super) wait: Duration,
}

impl SentRequest {
    pub(super) fn now(wait: Duration) -> Self {
        Self { at: Instant::now(), boot_time: BootTime::now(), wait }
    }

    /// Upper bound for when the server answered, for an answer that has arrived: it may have waited unread while the machine
    /// slept.
    pub(super) fn answered(self) -> BootTime {
        BootTime::now().min(self.boot_time + self.wait)
    }

    /// Lower bound for when the server answered, if it was asked not to hold the request.
    pub(super) fn confirmed(self) -> Option<BootTime> {
        self.wait.is_zero().then_some(self.boot_time)
    }

    /// Time of an "unchanged" answer that has arrived, if it is certain: the end of the wait. `None` for an earlier answer,
    /// which may have waited unread.
    pub(super) fn unchanged_at(self) -> Option<BootTime> {
        let end = self.boot_time + self.wait;
        (BootTime::now() >= end).then_some(end)
    }
}
