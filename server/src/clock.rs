//! The wall clock in milliseconds, as rows of the state and certificates have it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub(crate) type TimeMs = i64;

/// The present time; a clock before 1970 reads as 0.
pub(crate) fn now_ms() -> TimeMs {
    time_ms(SystemTime::now())
}

/// `time` in milliseconds since the Unix epoch; 0 before it.
pub(crate) fn time_ms(time: SystemTime) -> TimeMs {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `duration` in milliseconds, saturating.
pub(crate) fn milliseconds(duration: Duration) -> TimeMs {
    TimeMs::try_from(duration.as_millis()).unwrap_or(TimeMs::MAX)
}
