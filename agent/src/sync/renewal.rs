//! The time of the next certificate renewal.

use std::time::Duration;

use crate::identity::Validity;

/// Time between two attempts, in milliseconds.
const RETRY_MS: i64 = 60_000;
/// The same for a short certificate, or one that expires soon.
const MIN_RETRY_MS: i64 = 500;
/// Shortest request and pause, however close the renewal is.
const MIN_LEFT: Duration = Duration::from_millis(100);

/// The renewal of the certificate in use. Times are in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    validity: Validity,
    next_ms: i64,
}

impl Renewal {
    /// For the certificate that the daemon starts with: after two thirds of its validity period, at once if they are past.
    pub(super) fn first(validity: Validity) -> Self {
        Self { validity, next_ms: validity.renew_at_ms() }
    }

    /// For a certificate that was just issued. Never at once, because a clock that is ahead would renew at each poll.
    pub(super) fn following(validity: Validity, now_ms: i64) -> Self {
        let next_ms = validity.renew_at_ms().max(now_ms.saturating_add(retry_ms(validity, now_ms)));
        Self { validity, next_ms }
    }

    /// Whether it is time. Never after the expiry: an expired certificate cannot authenticate a renewal.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        now_ms >= self.next_ms && !self.validity.has_expired(now_ms)
    }

    pub(super) fn failed(&mut self, now_ms: i64) {
        self.next_ms = now_ms.saturating_add(retry_ms(self.validity, now_ms));
    }

    /// Longest request and pause until then; unlimited after the certificate's expiry.
    pub(super) fn left(&self, now_ms: i64) -> Duration {
        if self.validity.has_expired(now_ms) {
            return Duration::MAX;
        }
        let left = u64::try_from(self.next_ms.saturating_sub(now_ms)).unwrap_or(0);
        Duration::from_millis(left).max(MIN_LEFT)
    }
}

/// A fraction of the remaining time, so that a short certificate gets more than one attempt.
fn retry_ms(validity: Validity, now_ms: i64) -> i64 {
    (validity.not_after_ms.saturating_sub(now_ms) / 8).clamp(MIN_RETRY_MS, RETRY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Validity = Validity { not_before_ms: 0, not_after_ms: 86_400_000 };
    const TWO_THIRDS: i64 = 57_600_000;

    #[test]
    fn renewal_is_due_at_two_thirds_of_life_and_after_a_failure_a_little_later() {
        let mut renewal = Renewal::first(DAY);
        assert!(!renewal.is_due(TWO_THIRDS - 1));
        assert!(renewal.is_due(TWO_THIRDS));
        renewal.failed(TWO_THIRDS);
        assert!(!renewal.is_due(TWO_THIRDS + RETRY_MS - 1));
        assert!(renewal.is_due(TWO_THIRDS + RETRY_MS));
        assert!(!renewal.is_due(DAY.not_after_ms + 1));
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_renew_at_each_poll() {
        let now = TWO_THIRDS + 1;
        assert!(Renewal::first(DAY).is_due(now));
        let renewal = Renewal::following(DAY, now);
        assert!(!renewal.is_due(now));
        assert!(renewal.is_due(now + RETRY_MS));
    }

    #[test]
    fn a_short_certificate_is_tried_again_several_times() {
        let short = Validity { not_before_ms: 0, not_after_ms: 9_000 };
        let mut renewal = Renewal::first(short);
        let mut attempts = 0;
        for now in 0..9_000 {
            if renewal.is_due(now) {
                attempts += 1;
                renewal.failed(now);
            }
        }
        assert!(attempts >= 4, "{attempts}");
    }
}
