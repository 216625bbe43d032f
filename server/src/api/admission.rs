//! How many connections there may be, in all and from one address, so that nobody takes them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most connections of one listener.
pub(super) const MAX_CONNECTIONS: usize = 8_192;
/// Most connections from one remote address. A loopback address is exempt: behind it are many users, or a proxy.
pub(super) const MAX_CONNECTIONS_PER_ADDRESS: usize = 512;

/// Counts the connections of one listener.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    counts: Arc<Mutex<Counts>>,
    limit: usize,
    limit_per_address: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the connections, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self::with_limits(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS)
    }

    fn with_limits(limit: usize, limit_per_address: usize) -> Self {
        Self { counts: Arc::default(), limit, limit_per_address }
    }

    /// A place for a connection from `address`, or none while there are too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut counts = lock(&self.counts);
        let from_address = counts.by_address.get(&address).copied().unwrap_or(0);
        let too_many_from_address = !address.is_loopback() && from_address >= self.limit_per_address;
        if counts.total >= self.limit || too_many_from_address {
            return None;
        }
        counts.total += 1;
        counts.by_address.insert(address, from_address + 1);
        Some(Place { counts: Arc::clone(&self.counts), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // Two counters are never left half changed, whatever panicked elsewhere.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let admission = Admission::with_limits(4, 2);
        let greedy: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<Place> = std::iter::from_fn(|| admission.admit(greedy)).collect();
        assert_eq!(held.len(), 2);
        let other = admission.admit("192.0.2.2".parse().unwrap());
        assert!(other.is_some());
        drop(held);
        assert!(admission.admit(greedy).is_some(), "a place that was given back can be taken again");
    }

    #[test]
    fn a_mapped_address_is_the_same_address() {
        let admission = Admission::with_limits(4, 1);
        let _place = admission.admit("192.0.2.1".parse().unwrap()).unwrap();
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
    }

    #[test]
    fn loopback_is_bounded_only_by_the_total() {
        let admission = Admission::with_limits(4, 1);
        let held: Vec<Place> = std::iter::from_fn(|| admission.admit("127.0.0.1".parse().unwrap())).collect();
        assert_eq!(held.len(), 4);
        drop(held);
        assert!(lock(&admission.counts).by_address.is_empty());
    }
}
