//! The audit's rate limit for refusals that are alike: repeated attempts with a revoked token, a
//! copied identity, or only a devbox's name do not fill the disk. Refusals over the limit still
//! appear in the metrics and in the log of requests.
//!
//! An IPv6 /64 counts as one address, because one host may use all of it. Whatever the address, an
//! actor gets at most [`MOST_OF_AN_ACTOR`] rows a minute for one action.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::audit::Attempt;
use super::network::network;
use crate::store::Actor;

/// The period of each limit.
const WINDOW: Duration = Duration::from_secs(60);

/// Most rows a minute of one actor's refusals of one action, from all addresses together.
const MOST_OF_AN_ACTOR: u32 = 300;

/// The number of windows from which ended ones are removed.
const FIRST_SWEEP: usize = 1024;

/// Refusals that are alike: of one actor, from one address, of one thing, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RefusalKey {
    actor: Actor,
    remote: Option<IpAddr>,
    action: &'static str,
    code: &'static str,
}

impl RefusalKey {
    pub(super) fn of(attempt: &Attempt, code: &'static str) -> Self {
        let Attempt { actor, remote, action, .. } = attempt;
        Self { actor: actor.clone(), remote: remote.map(network), action: action.as_str(), code }
    }

    /// All refusals of the same actor and action.
    fn of_any_address(&self) -> Self {
        Self { actor: self.actor.clone(), remote: None, action: self.action, code: "" }
    }
}

/// The remaining rows of the current minute.
#[derive(Debug, Default)]
pub(super) struct AuditLimiter(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    windows: HashMap<RefusalKey, Window>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Window {
    end: Instant,
    left: u32,
}

impl AuditLimiter {
    /// Whether one more refusal of `key` is recorded, of at most `most` a minute.
    pub(super) fn is_due(&self, key: RefusalKey, most: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(key, most, Instant::now())
    }
}

impl Table {
    fn is_due(&mut self, key: RefusalKey, most: u32, now: Instant) -> bool {
        let of_any_address = key.of_any_address();
        // The actor's own limit comes first, so that keys beyond it take no memory.
        self.has_left(&of_any_address, now)
            && self.take(key, most, now)
            && self.take(of_any_address, MOST_OF_AN_ACTOR, now)
    }

    fn has_left(&self, key: &RefusalKey, now: Instant) -> bool {
        self.windows.get(key).is_none_or(|window| window.left > 0 || window.end <= now)
    }

    fn take(&mut self, key: RefusalKey, most: u32, now: Instant) -> bool {
        if self.windows.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.windows.retain(|_, window| window.end > now);
            self.sweep_at = 2 * self.windows.len();
        }
        let new = || Window { end: now + WINDOW, left: most };
        let window = self.windows.entry(key).or_insert_with(new);
        if window.end <= now {
            *window = new();
        }
        let is_due = window.left > 0;
        window.left = window.left.saturating_sub(1);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::crypto::id::DevboxId;

    fn key(devbox: &str, host: u8, code: &'static str) -> RefusalKey {
        let actor = Actor::Devbox(DevboxId::new(devbox));
        RefusalKey { actor, remote: Some([192, 0, 2, host].into()), action: "devbox.bundle", code }
    }

    #[test]
    fn the_same_is_due_so_often_a_minute_and_anything_else_beside_it() {
        let mut table = Table::default();
        let now = Instant::now();
        let mut due = |key, after| table.is_due(key, 2, now + Duration::from_secs(after));
        assert!(due(key("dbx_1", 7, "a"), 0) && due(key("dbx_1", 7, "a"), 30));
        assert!(!due(key("dbx_1", 7, "a"), 59));
        assert!(due(key("dbx_2", 7, "a"), 59) && due(key("dbx_1", 8, "a"), 59));
        assert!(due(key("dbx_1", 7, "b"), 59));
        assert!(due(key("dbx_1", 7, "a"), 60));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut table = Table::default();
        let now = Instant::now();
        let from = |address: &str| {
            let remote = Some(network(address.parse().unwrap()));
            RefusalKey { remote, ..key("dbx_1", 7, "a") }
        };
        assert!(table.is_due(from("2001:db8:1:2::1"), 1, now));
        assert!(!table.is_due(from("2001:db8:1:2:ffff::9"), 1, now), "the same /64");
        assert!(table.is_due(from("2001:db8:1:3::1"), 1, now));
        assert_eq!(from("::ffff:192.0.2.7"), from("192.0.2.7"));
    }

    #[test]
    fn any_number_of_addresses_gets_no_more_rows_and_memory_than_an_actor_may_have() {
        let mut table = Table::default();
        let now = Instant::now();
        let from = |actor: &str, number: u128| {
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | number << 64);
            RefusalKey { remote: Some(address.into()), ..key(actor, 7, "a") }
        };
        let written = (0..10_000).filter(|number| table.is_due(from("dbx_1", *number), 60, now)).count();
        assert_eq!(written, MOST_OF_AN_ACTOR as usize);
        assert!(table.windows.len() <= MOST_OF_AN_ACTOR as usize + 1, "{}", table.windows.len());
        assert!(table.is_due(from("dbx_2", 1), 60, now), "another actor");
    }

    #[test]
    fn ended_windows_are_forgotten() {
        let mut table = Table::default();
        let now = Instant::now();
        for number in 0..10 * FIRST_SWEEP as u64 {
            let at = now + Duration::from_millis(100 * number);
            table.is_due(key(&format!("dbx_{number}"), 7, "a"), 1, at);
        }
        assert!(table.windows.len() < 3 * FIRST_SWEEP, "{}", table.windows.len());
    }
}
