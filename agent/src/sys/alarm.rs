//! A timer on each of the two clocks: leases expire by one, certificates by the other. Both count the time that the machine
//! sleeps, which the runtime's own timers do not, so no periodic check is needed.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::select;

use super::descriptors::{Owned, wait_for};

/// A time of 0 would disarm the timer.
const SHORTEST: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Time until then on the clock of [`BootTime`](super::BootTime).
    pub(crate) lease: Option<Duration>,
    /// Point in time on the calendar clock, in milliseconds since the epoch.
    pub(crate) calendar_ms: Option<i64>,
}

/// Two timers of the kernel (timerfd_create(2)).
#[derive(Debug)]
pub struct Alarm {
    lease: AsyncFd<Owned<TimerFd>>,
    calendar: AsyncFd<Owned<TimerFd>>,
}

impl Alarm {
    /// Both timers, disarmed. Call on the runtime that will wait for them.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let timer = |clock| -> io::Result<_> {
            wait_for(TimerFd::new(clock, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?)
        };
        Ok(Self { lease: timer(ClockId::CLOCK_BOOTTIME)?, calendar: timer(ClockId::CLOCK_REALTIME)? })
    }

    /// Waits until the first of `ends`, or until the calendar clock is set; for ever if there is none.
    ///
    /// # Errors
    /// The kernel refuses the timer. No case is known.
    pub(crate) async fn ring(&self, ends: Ends) -> io::Result<()> {
        let lease = ends.lease.map(|left| TimeSpec::from_duration(left.max(SHORTEST)));
        set(&self.lease, lease, TimerSetTimeFlags::empty())?;
        let at = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default()).max(SHORTEST);
        let calendar = ends.calendar_ms.map(|ms| TimeSpec::from_duration(at(ms)));
        let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        set(&self.calendar, calendar, absolute)?;
        select! {
            rung = rung(&self.lease) => rung,
            rung = rung(&self.calendar) => rung,
        }
    }
}

async fn rung(timer: &AsyncFd<Owned<TimerFd>>) -> io::Result<()> {
    let read = |timer: &Owned<TimerFd>| match read(&timer.0, &mut [0; 8]) {
        // ECANCELED: the calendar clock was set.
        Ok(_) | Err(Errno::ECANCELED) => Ok(()),
        Err(errno) => Err(errno.into()),
    };
    timer.async_io(Interest::READABLE, read).await
}

fn set(timer: &AsyncFd<Owned<TimerFd>>, at: Option<TimeSpec>, flags: TimerSetTimeFlags) -> nix::Result<()> {
    let timer = &timer.get_ref().0;
    match at {
        Some(at) => timer.set(Expiration::OneShot(at), flags),
        None => timer.unset(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::sys::now_ms;

    const SOON: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn it_rings_at_the_first_expiry_on_either_clock_and_never_without_one() {
        let alarm = Alarm::new().unwrap();
        let later = Some(Duration::from_secs(3_600));
        alarm.ring(Ends { lease: Some(SOON), calendar_ms: Some(now_ms() + 3_600_000) }).await.unwrap();
        alarm.ring(Ends { lease: later, calendar_ms: Some(now_ms() + 30) }).await.unwrap();
        alarm.ring(Ends { lease: Some(Duration::ZERO), calendar_ms: None }).await.unwrap();
        alarm.ring(Ends { lease: None, calendar_ms: Some(-1) }).await.unwrap();
        assert!(timeout(SOON, alarm.ring(Ends::default())).await.is_err());
    }
}
