//! How many refusals that are alike are written down: who tries again and again, with a revoked token, a copied identity, or no
//! more than a devbox's name, does not fill the disk. The others are in the counters and in the log of requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::audit::Attempt;
use crate::store::Actor;

/// What a limit is for.
const WINDOW: Duration = Duration::from_secs(60);

/// From how many kinds on those whose window has ended are forgotten.
const FIRST_SWEEP: usize = 1024;

/// Refusals that are alike: of one actor, from one address, of one thing, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Notice {
    actor: Actor,
    remote: Option<IpAddr>,
    action: &'static str,
    code: &'static str,
}

impl Notice {
    pub(super) fn of(attempt: &Attempt, code: &'static str) -> Self {
        let Attempt { actor, remote, action, .. } = attempt;
        Self { actor: actor.clone(), remote: *remote, action: action.as_str(), code }
    }
}

/// What may be written in the current minute.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    windows: HashMap<Notice, Window>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Window {
    end: Instant,
    left: u32,
}

impl Notices {
    /// Whether one more of `notice` is written, of `most` a minute.
    pub(super) fn is_due(&self, notice: Notice, most: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(notice, most, Instant::now())
    }
}

impl Table {
    fn is_due(&mut self, notice: Notice, most: u32, now: Instant) -> bool {
        if self.windows.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.windows.retain(|_, window| window.end > now);
            self.sweep_at = 2 * self.windows.len();
        }
        let new = || Window { end: now + WINDOW, left: most };
        let window = self.windows.entry(notice).or_insert_with(new);
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
    use super::*;
    use crate::crypto::id::DevboxId;

    fn notice(devbox: &str, host: u8, code: &'static str) -> Notice {
        let actor = Actor::Devbox(DevboxId::new(devbox));
        Notice { actor, remote: Some([192, 0, 2, host].into()), action: "devbox.bundle", code }
    }

    #[test]
    fn the_same_is_due_so_often_a_minute_and_anything_else_beside_it() {
        let (mut table, now) = (Table::default(), Instant::now());
        let mut due = |notice, after| table.is_due(notice, 2, now + Duration::from_secs(after));
        assert!(due(notice("dbx_1", 7, "a"), 0) && due(notice("dbx_1", 7, "a"), 30));
        assert!(!due(notice("dbx_1", 7, "a"), 59));
        assert!(due(notice("dbx_2", 7, "a"), 59) && due(notice("dbx_1", 8, "a"), 59));
        assert!(due(notice("dbx_1", 7, "b"), 59));
        assert!(due(notice("dbx_1", 7, "a"), 60));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..10 * FIRST_SWEEP as u64 {
            let at = now + Duration::from_millis(100 * number);
            table.is_due(notice(&format!("dbx_{number}"), 7, "a"), 1, at);
        }
        assert!(table.windows.len() < 3 * FIRST_SWEEP, "{}", table.windows.len());
    }
}
