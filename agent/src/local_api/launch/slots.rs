//! A bounded number of slots for connections, which no user can exhaust alone.
//!
//! Users are in one of four tiers by their [`Relation`] to the rules, and no tier takes slots from
//! another; users to whom no rule can apply share the smallest. Within a tier a user may take one
//! more slot while it has fewer than are free. So the first user gets half of the tier, the second
//! a quarter, and so on, and one slot is always left for the next.
//!
//! A user namespace gives its owner 65,536 more uids. All uids of such a range count as one user,
//! unless a rule names them.
//!
//! A slot is taken until its launcher has read the answer, and counts the locked memory of that
//! answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

use crate::access::peer::household;
use crate::access::policy::Relation;

const MAX_SLOTS: usize = 1_024;
/// Most refusals for lack of a slot that wait to be read. Later connections are closed without one.
const MAX_TURNED_AWAY: usize = 64;
/// File descriptors kept back for everything else: sync, admin socket, logs, prepared launches.
const OTHER_DESCRIPTORS: usize = 64;
/// A connection takes two descriptors while its process is examined: the socket and the process.
const DESCRIPTORS_A_SLOT: usize = 2;
/// Most locked memory that answers take until they are read, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// The part of the limit of locked memory that answers may take; the rest is for the secrets
/// themselves.
const PART_OF_LOCK_LIMIT: usize = 4;

/// Each tier's share of all slots, in sixteenths, and of all bytes, in quarters. Strangers need no
/// bytes, because they get no variables.
const SHARES: [(Tier, usize, usize); 4] =
    [(Tier::Strangers, 1, 0), (Tier::Possible, 6, 1), (Tier::Named, 8, 2), (Tier::Reserve, 1, 1)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    /// No rule can apply to them.
    Strangers,
    /// Only rules that name neither user nor group can apply to them.
    Possible,
    /// A rule names their uid or gid.
    Named,
    /// Root, and the daemon's own user.
    Reserve,
}

#[derive(Debug)]
pub(super) struct LaunchSlots {
    own_uid: u32,
    tiers: Mutex<[Taken; 4]>,
}

#[derive(Debug, Default)]
struct Taken {
    slots: Budget,
    bytes: Budget,
    by_user: HashMap<u32, Share>,
}

#[derive(Debug, Default)]
struct Budget {
    limit: usize,
    taken: usize,
}

#[derive(Debug, Default)]
struct Share {
    slots: usize,
    bytes: usize,
}

/// One connection's slot, free again when dropped.
#[derive(Debug)]
pub(super) struct LaunchSlot {
    slots: Arc<LaunchSlots>,
    tier: Tier,
    user: u32,
    bytes: usize,
}

impl LaunchSlots {
    /// As many slots as the process's file descriptors allow, and bytes as its limit of locked memory allows.
    pub(super) fn for_this_process() -> Self {
        let descriptors = limit(Resource::RLIMIT_NOFILE).saturating_sub(OTHER_DESCRIPTORS);
        let bytes = MAX_BYTES.min(limit(Resource::RLIMIT_MEMLOCK) / PART_OF_LOCK_LIMIT);
        Self::new(MAX_SLOTS.min(descriptors / DESCRIPTORS_A_SLOT), bytes, geteuid().as_raw())
    }

    /// Slots for connections that only get a refusal, because all other slots are taken.
    pub(super) fn for_turned_away() -> Self {
        Self::new(MAX_TURNED_AWAY, 0, geteuid().as_raw())
    }

    fn new(capacity: usize, bytes: usize, own_uid: u32) -> Self {
        let tiers = SHARES.map(|(_, sixteenths, quarters)| Taken {
            slots: Budget::of((capacity * sixteenths / 16).max(1)),
            bytes: Budget::of(bytes * quarters / 4),
            by_user: HashMap::new(),
        });
        Self { own_uid, tiers: Mutex::new(tiers) }
    }

    /// A slot for a connection of `uid`; `None` if it has its share.
    pub(super) fn take(self: &Arc<Self>, uid: u32, relation: Relation) -> Option<LaunchSlot> {
        let is_owner = uid == 0 || uid == self.own_uid;
        let mut tiers = self.lock();
        if is_owner {
            // No share limits them, because they could stop the daemon anyway.
            let tier = [Tier::Reserve, Tier::Named]
                .into_iter()
                .find(|tier| tiers[*tier as usize].slots.left() > 0)?;
            tiers[tier as usize].take(uid);
            return Some(LaunchSlot { slots: Arc::clone(self), tier, user: uid, bytes: 0 });
        }
        let (tier, user) = match relation {
            Relation::Named => (Tier::Named, uid),
            // One user can own a whole range of subordinate uids, so the range shares one slot
            // count.
            Relation::Possible => (Tier::Possible, household(uid)),
            Relation::None => (Tier::Strangers, household(uid)),
        };
        let taken = &mut tiers[tier as usize];
        // A user may have as many slots as are left, so each flood leaves half to the others.
        if taken.of(user).slots >= taken.slots.left() {
            return None;
        }
        taken.take(user);
        Some(LaunchSlot { slots: Arc::clone(self), tier, user, bytes: 0 })
    }

    pub(super) fn taken(&self) -> usize {
        self.lock().iter().map(|taken| taken.slots.taken).sum()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().iter().map(|taken| taken.bytes.taken).sum()
    }

    fn lock(&self) -> MutexGuard<'_, [Taken; 4]> {
        self.tiers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaunchSlot {
    /// Counts `bytes` of locked memory until [`Self::release`] or the slot's drop. Returns `false`
    /// and counts none if they exceed the user's share: all that is left of the tier for its first
    /// answer, and for others the rule for slots.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let mut tiers = self.slots.lock();
        let taken = &mut tiers[self.tier as usize];
        let mine = taken.of(self.user).bytes;
        let fits = bytes <= taken.bytes.left() && (mine == 0 || mine + bytes <= taken.bytes.left());
        if fits {
            taken.bytes.taken += bytes;
            taken.by_user.entry(self.user).or_default().bytes += bytes;
            self.bytes += bytes;
        }
        fits
    }

    /// Stops counting its bytes, which are no longer locked.
    pub(super) fn release(&mut self) {
        self.slots.lock()[self.tier as usize].release(self.user, 0, self.bytes);
        self.bytes = 0;
    }
}

impl Drop for LaunchSlot {
    fn drop(&mut self) {
        self.slots.lock()[self.tier as usize].release(self.user, 1, self.bytes);
    }
}

impl Taken {
    fn of(&self, user: u32) -> &Share {
        const NOTHING: &Share = &Share { slots: 0, bytes: 0 };
        self.by_user.get(&user).unwrap_or(NOTHING)
    }

    fn take(&mut self, user: u32) {
        self.slots.taken += 1;
        self.by_user.entry(user).or_default().slots += 1;
    }

    fn release(&mut self, user: u32, slots: usize, bytes: usize) {
        self.slots.taken -= slots;
        self.bytes.taken -= bytes;
        if let Some(share) = self.by_user.get_mut(&user) {
            share.slots -= slots;
            share.bytes -= bytes;
            if share.slots == 0 {
                self.by_user.remove(&user);
            }
        }
    }
}

impl Budget {
    fn of(limit: usize) -> Self {
        Self { limit, taken: 0 }
    }

    fn left(&self) -> usize {
        self.limit.saturating_sub(self.taken)
    }
}

/// `usize::MAX` if there is no limit.
fn limit(resource: Resource) -> usize {
    let Ok((soft, _)) = getrlimit(resource) else { return usize::MAX };
    usize::try_from(soft).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;
    const SUBORDINATE: std::ops::Range<u32> = 100_000..165_536;
    const MIB: usize = 1 << 20;

    fn slots() -> Arc<LaunchSlots> {
        Arc::new(LaunchSlots::new(1_024, 64 * MIB, OWN))
    }

    fn flood(slots: &Arc<LaunchSlots>, uid: u32, relation: Relation) -> Vec<LaunchSlot> {
        std::iter::from_fn(|| slots.take(uid, relation)).take(10_000).collect()
    }

    #[test]
    fn each_flooding_user_leaves_half_of_what_it_found() {
        let slots = slots();
        let floods: Vec<_> = (1..=5).map(|uid| flood(&slots, uid, Relation::Named)).collect();
        let sizes: Vec<_> = floods.iter().map(Vec::len).collect();
        assert_eq!(sizes, [256, 128, 64, 32, 16]);
        assert!(slots.take(6, Relation::Named).is_some());
    }

    #[test]
    fn a_range_of_subordinate_uids_takes_no_place_from_users_that_rules_name_or_could_be_about() {
        for (relation, other) in
            [(Relation::None, Relation::Possible), (Relation::Possible, Relation::Possible)]
        {
            let slots = slots();
            let agent = [1_000].into_iter().chain(SUBORDINATE);
            let crowd: Vec<_> = agent.flat_map(|uid| flood(&slots, uid, relation)).collect();
            assert!(crowd.len() < 384, "{}", crowd.len());
            assert!(flood(&slots, 1_001, other).len() >= 48, "a user that a rule could be about");
            assert_eq!(flood(&slots, 1_002, Relation::Named).len(), 256, "a user that a rule names");
            assert!(flood(&slots, 0, Relation::None).len() >= 64, "root");
        }
    }

    #[test]
    fn many_users_that_rules_name_leave_a_reserve_for_root_and_for_the_daemons_own() {
        let slots = slots();
        let crowd: Vec<_> = (1..100).flat_map(|uid| flood(&slots, uid, Relation::Named)).collect();
        assert_eq!(crowd.len(), 512);
        assert_eq!(flood(&slots, 0, Relation::None).len(), 64);
        assert_eq!(flood(&slots, OWN, Relation::Named).len(), 64);
    }

    #[test]
    fn even_few_descriptors_leave_every_pool_a_slot() {
        let slots = Arc::new(LaunchSlots::new(1, 0, OWN));
        for (uid, relation) in
            [(0, Relation::None), (1, Relation::None), (2, Relation::Possible), (3, Relation::Named)]
        {
            assert_eq!(
                flood(&slots, uid, relation).len(),
                if uid == 0 { 2 } else { 1 },
                "{uid} {relation:?}"
            );
        }
    }

    #[test]
    fn the_bytes_of_unread_answers_are_shared_as_places_are() {
        let slots = slots();
        let hold = |uid, bytes| {
            let mut slot = slots.take(uid, Relation::Named)?;
            slot.hold(bytes).then_some(slot)
        };
        let greedy: Vec<_> = std::iter::from_fn(|| hold(1, MIB)).take(1_000).collect();
        assert_eq!(greedy.len(), 16, "half of the tier's 32 MiB");
        let other = hold(2, 6 * MIB).unwrap();
        assert!(hold(3, 11 * MIB).is_none());
        drop(other);
        assert!(hold(3, 11 * MIB).is_some(), "a first answer may take what is left");
        drop(greedy);
        assert_eq!(slots.lock()[Tier::Named as usize].bytes.taken, 0);
    }

    #[test]
    fn released_bytes_count_no_more_though_the_place_does() {
        let slots = slots();
        let mut slot = slots.take(1, Relation::Named).unwrap();
        assert!(slot.hold(32 * MIB));
        assert!(!slot.hold(1));
        slot.release();
        assert!(slot.hold(32 * MIB));
        assert_eq!(slots.taken(), 1);
    }

    #[test]
    fn a_stranger_has_no_locked_memory() {
        assert!(!slots().take(1, Relation::None).unwrap().hold(1));
    }

    #[test]
    fn a_dropped_place_is_free_again() {
        let slots = slots();
        let flood = flood(&slots, 1, Relation::Named);
        assert!(slots.take(1, Relation::Named).is_none());
        drop(flood);
        assert_eq!(slots.taken(), 0);
        assert!(slots.lock().iter().all(|taken| taken.by_user.is_empty()));
        assert!(slots.take(1, Relation::Named).is_some());
    }
}
