//! Rate limits: a token bucket for each key (the generic cell rate algorithm), in bounded memory.
//!
//! A bucket can report when it will have a token again without giving one out; that paces held
//! requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// The number of keys from which full buckets are removed. Removing one changes no decision.
const FIRST_SWEEP: usize = 1024;

const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Most keys that have a bucket of their own. Further keys share one, so that new keys cannot take
/// the memory.
const MOST_KEYS: usize = 65_536;

/// A bucket for each key.
#[derive(Debug)]
pub(crate) struct RateLimiter<K>(Mutex<Table<K>>);

/// A bucket is the moment at which it will be full again.
#[derive(Debug)]
struct Table<K> {
    full_at: HashMap<K, Instant>,
    shared: Option<Instant>,
    sweep_at: usize,
    last_sweep: Instant,
}

impl<K: Eq + Hash> Default for RateLimiter<K> {
    fn default() -> Self {
        Self(Mutex::new(Table {
            full_at: HashMap::new(),
            shared: None,
            sweep_at: FIRST_SWEEP,
            last_sweep: Instant::now(),
        }))
    }
}

impl<K: Eq + Hash + Clone> RateLimiter<K> {
    /// Takes a token out of the bucket of `key`.
    ///
    /// # Errors
    /// The time until the next token, if the bucket is empty.
    pub(crate) fn take(&self, key: &K, rate: Rate) -> Result<(), Duration> {
        self.table().take(key, rate, Instant::now())
    }

    /// How long until the bucket of `key` has a token.
    #[must_use]
    pub(crate) fn wait(&self, key: &K, rate: Rate) -> Duration {
        let now = Instant::now();
        wait(self.table().full_at(key, rate, now), rate, now)
    }

    /// A panic while the lock was held leaves the table whole: nothing that can panic is done under
    /// it.
    fn table(&self) -> MutexGuard<'_, Table<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token is there while the bucket lacks fewer than all of them.
fn wait(full_at: Instant, rate: Rate, now: Instant) -> Duration {
    let tolerance = rate.interval * (rate.burst - 1);
    full_at.saturating_duration_since(now).saturating_sub(tolerance)
}

impl<K: Eq + Hash + Clone> Table<K> {
    /// No bucket is emptier than empty: one that was emptied at a slower rate, before a reload, is
    /// refilled at this one.
    fn full_at(&mut self, key: &K, rate: Rate, now: Instant) -> Instant {
        let latest = now + rate.interval * rate.burst;
        let is_full = self.full_at.len() >= MOST_KEYS;
        let kept = self.full_at.get_mut(key).or(if is_full { self.shared.as_mut() } else { None });
        kept.map_or(now, |full_at| {
            *full_at = latest.min(*full_at);
            now.max(*full_at)
        })
    }

    fn take(&mut self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at(key, rate, now);
        match wait(full_at, rate, now) {
            Duration::ZERO => {
                self.keep(key, full_at + rate.interval, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    fn keep(&mut self, key: &K, full_at: Instant, now: Instant) {
        // At the most keys, each new one would sweep: once a second is often enough.
        if self.full_at.len() >= self.sweep_at && now >= self.last_sweep + SWEEP_PAUSE {
            self.last_sweep = now;
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = (2 * self.full_at.len()).clamp(FIRST_SWEEP, MOST_KEYS);
        }
        if let Some(kept) = self.full_at.get_mut(key) {
            *kept = full_at;
        } else if self.full_at.len() >= MOST_KEYS {
            self.shared = Some(full_at);
        } else {
            self.full_at.insert(key.clone(), full_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(100), burst: 3 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_an_interval() {
        let limiter = RateLimiter::default();
        let mut table = limiter.table();
        let mut now = Instant::now();
        for _ in 0..3 {
            assert_eq!(wait(table.full_at(&"a", RATE, now), RATE, now), Duration::ZERO);
            table.take(&"a", RATE, now).unwrap();
        }
        assert_eq!(table.take(&"a", RATE, now), Err(RATE.interval));
        table.take(&"b", RATE, now).unwrap();
        now += RATE.interval;
        table.take(&"a", RATE, now).unwrap();
        assert_eq!(wait(table.full_at(&"a", RATE, now), RATE, now), RATE.interval);
        now += RATE.interval * 10;
        for _ in 0..3 {
            table.take(&"a", RATE, now).unwrap();
        }
        assert!(table.take(&"a", RATE, now).is_err());
    }

    #[test]
    fn a_bucket_emptied_at_a_slower_rate_is_refilled_at_the_new_one() {
        let limiter = RateLimiter::default();
        let mut table = limiter.table();
        let now = Instant::now();
        let slow = Rate { interval: Duration::from_secs(60), burst: 10 };
        while table.take(&"a", slow, now).is_ok() {}
        assert_eq!(wait(table.full_at(&"a", slow, now), slow, now), slow.interval);
        assert_eq!(table.take(&"a", RATE, now), Err(RATE.interval));
        table.take(&"a", RATE, now + RATE.interval).unwrap();
    }

    #[test]
    fn keys_with_a_full_bucket_are_forgotten_and_further_ones_share_one() {
        let limiter = RateLimiter::default();
        let mut table = limiter.table();
        let now = Instant::now();
        for key in 0..2 * MOST_KEYS {
            let _ = table.take(&key, RATE, now);
        }
        assert_eq!(table.full_at.len(), MOST_KEYS);
        assert!(table.take(&usize::MAX, RATE, now).is_err(), "the shared bucket is empty");
        table.take(&usize::MAX, RATE, now + Duration::from_secs(1)).unwrap();
        assert!(table.full_at.len() < FIRST_SWEEP, "{}", table.full_at.len());
    }
}
