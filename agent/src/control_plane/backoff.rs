//! Exponential backoff after failures, with jitter, so that devboxes that lost the control plane together do not return
//! together.

use std::time::Duration;

use aws_lc_rs::rand;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

pub(crate) const MIN_DELAY: Duration = Duration::from_millis(100);
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    #[must_use]
    pub(crate) fn new() -> Self {
        // The jitter adds up to the delay once more, hence half of the maximum.
        let delays = ExponentialBuilder::default()
            .with_min_delay(MIN_DELAY)
            .with_max_delay(MAX_DELAY / 2)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(seed());
        Self(delays.build())
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        self.0.next().unwrap_or(MAX_DELAY)
    }

    /// Starts again with the shortest wait, after a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Random; the process id if there are no random numbers.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_the_shortest_and_stay_below_the_longest() {
        let mut backoff = Backoff::new();
        let delays: Vec<Duration> = (0..20).map(|_| backoff.next_delay()).collect();
        assert!((MIN_DELAY..=2 * MIN_DELAY).contains(&delays[0]), "{delays:?}");
        assert!(delays.iter().all(|delay| (MIN_DELAY..=MAX_DELAY).contains(delay)), "{delays:?}");
        assert!(delays[19] >= MAX_DELAY / 2, "{delays:?}");
    }

    #[test]
    fn two_devboxes_wait_for_different_times() {
        let delays =
            |mut backoff: Backoff| -> Vec<Duration> { (0..8).map(|_| backoff.next_delay()).collect() };
        assert_ne!(delays(Backoff::new()), delays(Backoff::new()));
    }

    #[test]
    fn a_success_makes_the_next_wait_short() {
        let mut backoff = Backoff::new();
        (0..10).for_each(|_| _ = backoff.next_delay());
        backoff.reset();
        assert!(backoff.next_delay() <= 2 * MIN_DELAY);
    }
}
