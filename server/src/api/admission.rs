//! How many connections or requests there may be, in all and by one address, certificate or
//! account.
//!
//! A key may take one more slot only while it has fewer slots than are free. So a key without a
//! slot gets one as long as one is free, and the more keys collude, the less each of the last ones
//! gets: with a limit of an eighth for each key, 7 keys take seven eighths, and each further key
//! half of the rest.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is admitted, in all and by key.
#[derive(Debug)]
pub(super) struct Admission<K>(Arc<Mutex<Counts<K>>>);

#[derive(Debug)]
struct Counts<K> {
    total: usize,
    by_key: HashMap<K, usize>,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Key,
}

/// A slot, free again on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot<K: Eq + Hash> {
    counts: Arc<Mutex<Counts<K>>>,
    key: Option<K>,
}

impl<K> Clone for Admission<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Admission<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Counts { total: 0, by_key: HashMap::new() })))
    }
}

impl<K: Eq + Hash + Clone> Admission<K> {
    /// A slot among at most `limit`, and among at most `limit_per_key` of `key`, if there is a key.
    pub(super) fn admit(
        &self,
        key: Option<K>,
        limit: usize,
        limit_per_key: usize,
    ) -> Result<ConnectionSlot<K>, Full> {
        let mut counts = lock(&self.0);
        let free = limit.saturating_sub(counts.total);
        if free == 0 {
            return Err(Full::All);
        }
        if let Some(key) = &key {
            let of_key = counts.by_key.get(key).copied().unwrap_or(0);
            if of_key >= limit_per_key.min(free) {
                return Err(Full::Key);
            }
            counts.by_key.insert(key.clone(), of_key + 1);
        }
        counts.total += 1;
        Ok(ConnectionSlot { counts: Arc::clone(&self.0), key })
    }
}

impl<K: Eq + Hash> Drop for ConnectionSlot<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total -= 1;
        let Some(key) = &self.key else { return };
        if let Some(count) = counts.by_key.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.by_key.remove(key);
            }
        }
    }
}

fn lock<K>(counts: &Mutex<Counts<K>>) -> MutexGuard<'_, Counts<K>> {
    // A panic while the lock was held leaves the counters consistent, so poisoning is ignored.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::registry::network::network;

    fn address(text: &str) -> Option<IpAddr> {
        Some(network(text.parse().unwrap()))
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let admission = Admission::default();
        let greedy = address("192.0.2.1");
        let held: Vec<_> = std::iter::from_fn(|| admission.admit(greedy, 4, 2).ok()).collect();
        assert_eq!(held.len(), 2);
        assert_eq!(admission.admit(greedy, 4, 2).err(), Some(Full::Key));
        let _other = admission.admit(address("192.0.2.2"), 4, 2).unwrap();
        drop(held);
        assert!(admission.admit(greedy, 4, 2).is_ok(), "a place that was given back can be taken again");
    }

    #[test]
    fn many_keys_together_leave_a_place_for_the_next() {
        let admission = Admission::default();
        let mut held = Vec::new();
        for key in 0..14 {
            held.push(std::iter::from_fn(|| admission.admit(Some(key), 1_024, 128).ok()).collect::<Vec<_>>());
        }
        let sizes: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(sizes, [128, 128, 128, 128, 128, 128, 128, 64, 32, 16, 8, 4, 2, 1]);
        assert!(admission.admit(Some(14), 1_024, 128).is_ok());
    }

    #[test]
    fn without_a_key_only_the_total_counts_and_no_key_stays_behind() {
        let admission = Admission::<IpAddr>::default();
        let held: Vec<_> = std::iter::from_fn(|| admission.admit(None, 4, 1).ok()).collect();
        assert_eq!(held.len(), 4);
        assert_eq!(admission.admit(address("192.0.2.1"), 4, 1).err(), Some(Full::All));
        drop(held);
        drop(admission.admit(address("192.0.2.1"), 4, 1));
        assert!(lock(&admission.0).by_key.is_empty() && lock(&admission.0).total == 0);
    }
}
