//! Rate limit for log lines that a stranger can cause at will: a few in each period, then their
//! number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(10);
/// Lines in one period.
const LINES: u32 = 10;

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Sampled(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    start: Instant,
    lines: u32,
    left_out: u64,
}

impl Sampled {
    /// If a line may be written now: how many were left out before it.
    pub(super) fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.get_or_insert(Window { start: now, lines: 0, left_out: 0 });
        if now >= window.start + PERIOD {
            (window.start, window.lines) = (now, 0);
        }
        if window.lines == LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_a_period_and_the_number_of_the_others() {
        let sampled = Sampled::default();
        let now = Instant::now();
        let written = (0..1_000).filter(|_| sampled.permit_at(now).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(sampled.permit_at(now + PERIOD), Some(990));
        assert_eq!(sampled.permit_at(now + PERIOD), Some(0));
    }
}
