//! The two clocks that the daemon decides by. Leases end by [`BootTime`], which counts the time that the machine sleeps:
//! secrets from before a week of suspension are stale after it. Certificates expire by the calendar ([`now_ms`]), which
//! anybody with `CAP_SYS_TIME` can set.

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The calendar clock, in milliseconds since the epoch. 0 before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Time since boot, suspension included (`CLOCK_BOOTTIME`, `clock_gettime(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The present. If the kernel had no such clock (no such kernel is known), the end of time, so that every lease is
    /// over.
    #[must_use]
    pub fn now() -> Self {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Self(Duration::MAX), |time| Self(time.into()))
    }

    /// Time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds since boot.
    #[must_use]
    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time `millis` milliseconds after boot.
    #[must_use]
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_from_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        assert!((BootTime::now().0.as_secs_f64() - seconds).abs() < 5.0);
    }

    #[test]
    fn sums_never_overflow() {
        assert!(BootTime::now() + Duration::MAX > BootTime::now());
        assert_eq!(BootTime::from_millis(5).since(BootTime::from_millis(9)), Duration::ZERO);
    }
}
