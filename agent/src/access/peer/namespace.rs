//! The ids by which the kernel shows users and groups that the daemon's user namespace does not map.
//!
//! In a rootless container, or under `PrivateUsers=`, every unmapped user of the machine has the one uid of
//! `/proc/sys/kernel/overflowuid`. It identifies nobody, so no rule may grant it anything.

use std::fs;
use std::sync::LazyLock;

/// The number of ids: all but `u32::MAX`, which means "no change" to the kernel.
const ALL_IDS: u64 = 0xffff_ffff;
/// The kernel's default (`DEFAULT_OVERFLOWUID`).
const DEFAULT: u32 = 65_534;

/// Subordinate uids start here on every distribution (`SUB_UID_MIN`, login.defs(5)), in ranges of
/// this length.
const FIRST_SUBORDINATE: u32 = 100_000;
const SUBORDINATE_RANGE: u32 = 65_536;

/// Whether `uid` stands for every user that the daemon's user namespace does not map.
#[must_use]
pub(crate) fn is_anonymous_user(uid: u32) -> bool {
    static USERS: LazyLock<Option<u32>> = LazyLock::new(|| anonymous("uid"));
    *USERS == Some(uid)
}

/// Whether `gid` stands for every group that the daemon's user namespace does not map.
#[must_use]
pub(crate) fn is_anonymous_group(gid: u32) -> bool {
    static GROUPS: LazyLock<Option<u32>> = LazyLock::new(|| anonymous("gid"));
    *GROUPS == Some(gid)
}

/// The user that shares are counted for: the uid itself, or the first of its range of subordinate
/// uids, because a user owns all of a range. A range that starts elsewhere than at a multiple of
/// its length counts as two users.
#[must_use]
pub(crate) fn household(uid: u32) -> u32 {
    match uid.checked_sub(FIRST_SUBORDINATE) {
        Some(offset) => uid - offset % SUBORDINATE_RANGE,
        None => uid,
    }
}

/// `None` if every id is mapped. An unreadable map counts as one that leaves ids out.
fn anonymous(kind: &str) -> Option<u32> {
    let map = fs::read_to_string(format!("/proc/self/{kind}_map")).unwrap_or_default();
    if maps_every_id(&map) {
        return None;
    }
    let id = fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}"));
    Some(id.ok().and_then(|id| id.trim().parse().ok()).unwrap_or(DEFAULT))
}

/// A line of user_namespaces(7) has the first id inside, the first outside, and the length. Ranges
/// never overlap.
fn maps_every_id(map: &str) -> bool {
    let lengths = map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
    lengths.sum::<u64>() == ALL_IDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_all_ids_leaves_nobody_out() {
        assert!(maps_every_id("         0          0 4294967295\n"));
        assert!(maps_every_id("0 0 1000\n1000 1000 4294966295\n"));
        for map in ["", "0 1000 1", "0 100000 65536\n65536 0 1", "rubbish"] {
            assert!(!maps_every_id(map), "{map}");
        }
    }
}
