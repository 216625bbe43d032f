//! A bounded number of places for connections, of which no user can have them all.
//!
//! A user may take one more place while it has fewer than are free. One user thus gets half of all places, a second a
//! quarter, and so on: there is always one for the next. The daemon's own user, which could stop the daemon anyway, may
//! take what is free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

/// Most connections at a time.
const MAX_PLACES: usize = 1_024;
/// File descriptors kept back for everything else: sync, admin socket, logs, prepared launches.
const OTHER_DESCRIPTORS: usize = 64;

#[derive(Debug)]
pub(super) struct Places {
    capacity: usize,
    own_uid: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_uid: HashMap<u32, usize>,
}

/// One connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// As many places as the process's file descriptors allow.
    pub(super) fn for_this_process() -> Self {
        Self::new(MAX_PLACES.min(descriptors().saturating_sub(OTHER_DESCRIPTORS)), geteuid().as_raw())
    }

    fn new(capacity: usize, own_uid: u32) -> Self {
        Self { capacity, own_uid, taken: Mutex::default() }
    }

    /// A place for a connection of `uid`; none where it has its share.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = self.lock();
        let free = self.capacity.saturating_sub(taken.all);
        let mine = taken.by_uid.get(&uid).copied().unwrap_or(0);
        if free == 0 || (uid != self.own_uid && mine >= free) {
            return None;
        }
        taken.all += 1;
        taken.by_uid.insert(uid, mine + 1);
        Some(Place { places: Arc::clone(self), uid })
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(mine) = taken.by_uid.get_mut(&self.uid) {
            *mine -= 1;
            if *mine == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
    }
}

fn descriptors() -> usize {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return MAX_PLACES };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 0;

    fn flood(places: &Arc<Places>, uid: u32) -> Vec<Place> {
        std::iter::from_fn(|| places.take(uid)).take(10_000).collect()
    }

    #[test]
    fn each_flooding_user_leaves_half_of_what_it_found() {
        let places = Arc::new(Places::new(1_024, OWN));
        let floods: Vec<_> = (1..=5).map(|uid| flood(&places, uid)).collect();
        let sizes: Vec<_> = floods.iter().map(Vec::len).collect();
        assert_eq!(sizes, [512, 256, 128, 64, 32]);
        assert!(places.take(6).is_some());
    }

    #[test]
    fn the_own_user_may_take_all_that_is_free_and_no_more() {
        let places = Arc::new(Places::new(16, OWN));
        assert_eq!(flood(&places, OWN).len(), 16);
    }

    #[test]
    fn a_dropped_place_is_free_again() {
        let places = Arc::new(Places::new(16, OWN));
        let flood = flood(&places, 1);
        assert!(places.take(1).is_none());
        drop(flood);
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_uid.is_empty());
        assert!(places.take(1).is_some());
    }
}
