//! How long a launch tries to get its secrets, and the backoff between attempts.
//!
//! With `--wait` it retries while waiting can help: the daemon is not running (it restarts, is upgraded, has crashed),
//! closes the connection, or refuses with a code that may pass. Without it the daemon must be running, and only secrets
//! that were withdrawn in transit are requested again.

use devbox_launch_proto::MAX_WAIT_MS;
use syscalls::Errno;

use crate::failure::SecretsFailure;
use crate::payload::InvalidPayload;

/// The daemon's time to fetch its first secrets, unless the user sets one, in milliseconds.
const DEFAULT_WAIT_MS: u32 = 5_000;
/// The first pause between two attempts, in milliseconds. Each further pause is twice as long.
const FIRST_PAUSE_MS: u32 = 10;
/// The longest pause while no daemon is running: an attempt is cheap.
const LONGEST_PAUSE_ABSENT_MS: u32 = 100;
/// The longest pause after an answer: each attempt costs the daemon a line of its log.
const LONGEST_PAUSE_MS: u32 = 1_000;
/// How often withdrawn secrets are requested again: each time leaves their pages mapped.
const MOST_WITHDRAWALS: u32 = 8;

/// The waits of one launch. `Clock` reads milliseconds that never go back.
#[derive(Debug)]
pub(crate) struct Wait<Clock> {
    clock: Clock,
    /// Time that the daemon may take in one attempt.
    wait_ms: u32,
    /// The end of a wait that the user asked for.
    deadline_ms: Option<u64>,
    pause_ms: u32,
    withdrawals: u32,
}

/// Time limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// How long the daemon may hold the request, in milliseconds.
    pub wait_ms: u32,
    /// The user asked to wait, and there is time for another attempt after this one.
    pub patient: bool,
}

impl<Clock: Fn() -> u64> Wait<Clock> {
    /// Starts a wait of `wait_ms` milliseconds, if the user asked for one. Only such a wait reads the clock.
    pub(crate) fn new(wait_ms: Option<u32>, clock: Clock) -> Self {
        let asked = wait_ms.map(|wait_ms| wait_ms.min(MAX_WAIT_MS)).filter(|wait_ms| *wait_ms > 0);
        // The clock's fraction of a millisecond is cut off: one more, so that no wait is shorter than was asked for.
        let deadline_ms = asked.map(|wait_ms| clock() + u64::from(wait_ms) + 1);
        let wait_ms = wait_ms.unwrap_or(DEFAULT_WAIT_MS);
        Self { clock, wait_ms, deadline_ms, pause_ms: FIRST_PAUSE_MS, withdrawals: 0 }
    }

    /// Time limits of the next attempt. The last one of a wait has no time left: it only
    /// gets the reason.
    pub(crate) fn attempt(&self) -> Attempt {
        match self.left_ms() {
            None => Attempt { wait_ms: self.wait_ms, patient: false },
            Some(left_ms) => Attempt { wait_ms: left_ms, patient: left_ms > 0 },
        }
    }

    /// How long to pause before the next attempt, in milliseconds; `None` if no other one follows this failure.
    pub(crate) fn pause_ms(&mut self, attempt: Attempt, failure: &SecretsFailure<'_>) -> Option<u32> {
        let longest_ms = match failure {
            SecretsFailure::Payload(InvalidPayload::Withdrawn) => {
                self.withdrawals += 1;
                let again = attempt.wait_ms > 0 && self.withdrawals <= MOST_WITHDRAWALS;
                again.then_some(LONGEST_PAUSE_MS)?
            }
            _ if !attempt.patient => return None,
            SecretsFailure::Connect(_, Errno::ENOENT | Errno::ECONNREFUSED) => LONGEST_PAUSE_ABSENT_MS,
            SecretsFailure::Closed => LONGEST_PAUSE_MS,
            SecretsFailure::Refused(code, _) if code.may_pass() => LONGEST_PAUSE_MS,
            _ => return None,
        };
        let pause_ms = self.pause_ms.min(longest_ms);
        self.pause_ms = (self.pause_ms * 2).min(LONGEST_PAUSE_MS);
        Some(self.left_ms().map_or(pause_ms, |left_ms| pause_ms.min(left_ms)))
    }

    /// Time left of the wait that the user asked for, in milliseconds.
    fn left_ms(&self) -> Option<u32> {
        let left_ms = self.deadline_ms?.saturating_sub((self.clock)());
        Some(u32::try_from(left_ms).unwrap_or(self.wait_ms).min(self.wait_ms))
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::vec::Vec;

    use devbox_launch_proto::ErrorCode;

    use super::*;

    const PASSING: [SecretsFailure<'static>; 6] = [
        SecretsFailure::Connect(b"", Errno::ENOENT),
        SecretsFailure::Connect(b"", Errno::ECONNREFUSED),
        SecretsFailure::Closed,
        SecretsFailure::Refused(ErrorCode::NotReady, b""),
        SecretsFailure::Refused(ErrorCode::Stale, b""),
        SecretsFailure::Refused(ErrorCode::Busy, b""),
    ];
    const WITHDRAWN: SecretsFailure<'static> = SecretsFailure::Payload(InvalidPayload::Withdrawn);

    #[test]
    fn a_wait_goes_on_through_everything_that_may_pass_and_asks_once_more_at_its_end() {
        for failure in PASSING {
            let now_ms = Cell::new(1_000);
            let mut wait = Wait::new(Some(7_200_000), || now_ms.get());
            let mut attempts = Vec::from([wait.attempt()]);
            while let Some(pause_ms) = wait.pause_ms(*attempts.last().unwrap(), &failure) {
                now_ms.set(now_ms.get() + u64::from(pause_ms));
                attempts.push(wait.attempt());
            }
            assert_eq!(attempts[0], Attempt { wait_ms: 7_200_000, patient: true });
            assert_eq!(attempts.last(), Some(&Attempt { wait_ms: 0, patient: false }), "{failure:?}");
            assert!(now_ms.get() > 7_200_000, "two hours are two hours: {failure:?}");
            assert!(attempts.len() < 80_000, "no busy loop: {failure:?}");
        }
    }

    #[test]
    fn a_failure_that_waiting_cannot_help_ends_the_wait_at_once() {
        let for_good = [
            SecretsFailure::Refused(ErrorCode::Denied, b""),
            SecretsFailure::Refused(ErrorCode::Missing, b""),
            SecretsFailure::Refused(ErrorCode::Invalid, b""),
            SecretsFailure::Connect(b"", Errno::EACCES),
            SecretsFailure::RequestTooLarge,
        ];
        for failure in for_good {
            let mut wait = Wait::new(Some(60_000), || 0);
            assert_eq!(wait.pause_ms(wait.attempt(), &failure), None, "{failure:?}");
        }
    }

    #[test]
    fn without_a_wait_each_failure_is_the_last_but_a_withdrawal() {
        for (asked, wait_ms) in [(None, 5_000), (Some(0), 0)] {
            let mut wait = Wait::new(asked, || panic!("the clock costs a system call"));
            let attempt = wait.attempt();
            assert_eq!(attempt, Attempt { wait_ms, patient: false });
            for failure in PASSING {
                assert_eq!(wait.pause_ms(attempt, &failure), None, "{failure:?}");
            }
            assert_eq!(wait.pause_ms(attempt, &WITHDRAWN).is_some(), asked.is_none());
        }
    }

    #[test]
    fn withdrawn_secrets_are_asked_for_again_a_few_times() {
        for asked in [None, Some(60_000)] {
            let mut wait = Wait::new(asked, || 0);
            let attempt = wait.attempt();
            let pauses = core::iter::from_fn(|| wait.pause_ms(attempt, &WITHDRAWN)).take(100).count();
            assert_eq!(pauses, MOST_WITHDRAWALS as usize);
        }
    }
}
