//! What the daemon holds right now, and until when it may serve it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use devbox_launch_proto::ErrorCode;
use tokio::sync::watch;

use super::{BootTime, Generation};

/// Why the daemon holds no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It has not had any yet: a launch may wait.
    Starting,
    /// The control plane was away for longer than the lease.
    Stale,
    /// The devbox was shut down, its certificate expired or was revoked.
    Revoked,
    /// The daemon is stopping.
    Stopping,
}

impl Loss {
    /// A stable word for `status` and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stale => "stale",
            Self::Revoked => "revoked",
            Self::Stopping => "stopping",
        }
    }

    /// What a launch is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Starting | Self::Stopping => ErrorCode::NotReady,
            Self::Stale => ErrorCode::Stale,
            Self::Revoked => ErrorCode::Denied,
        }
    }
}

/// The daemon holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Why, for programs.
    pub loss: Loss,
    /// Why and what to do, for people: one line.
    pub reason: Arc<str>,
}

/// What the vault holds, for `status`.
#[derive(Debug, Clone)]
pub enum Holding {
    /// Secrets, for as long as the lease.
    Ready {
        /// The secrets.
        generation: Arc<Generation>,
        /// What is left of the lease.
        lease_left: Duration,
    },
    /// Nothing.
    Without(Unavailable),
}

/// Holds at most one generation, and none past its lease: whoever asks after its end gets nothing, whether or not a timer
/// ran (the machine may have slept).
#[derive(Debug)]
pub struct Vault {
    state: ArcSwap<State>,
    /// End of the lease, in milliseconds of [`BootTime`].
    lease: AtomicU64,
    /// Held by whoever changes `state`.
    writer: Mutex<()>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
enum State {
    Ready(Arc<Generation>),
    Without(Unavailable),
}

impl Vault {
    /// Holds nothing yet. `reason` is what launches are told meanwhile: one line.
    #[must_use]
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        let unavailable = Unavailable { loss: Loss::Starting, reason: reason.into() };
        Self {
            state: ArcSwap::from_pointee(State::Without(unavailable)),
            lease: AtomicU64::new(0),
            writer: Mutex::new(()),
            changes: watch::Sender::new(()),
        }
    }

    /// The secrets, or why there are none.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn current(&self) -> Result<Arc<Generation>, Unavailable> {
        match &**self.state.load() {
            State::Ready(generation) if self.lease_left() > Duration::ZERO => {
                return Ok(Arc::clone(generation));
            }
            State::Ready(_) => {}
            State::Without(unavailable) => return Err(unavailable.clone()),
        }
        self.expire();
        match &**self.state.load() {
            State::Ready(generation) => Ok(Arc::clone(generation)),
            State::Without(unavailable) => Err(unavailable.clone()),
        }
    }

    /// Holds `generation` from now on, until `lease`. The one before is wiped at its last release.
    pub fn replace(&self, generation: Generation, lease: BootTime) {
        let _writer = self.write();
        self.lease.store(lease.as_millis(), Ordering::Release);
        self.store(State::Ready(Arc::new(generation)));
    }

    /// The control plane has confirmed what is held: it may be served until `lease`.
    pub fn renew_lease(&self, lease: BootTime) {
        let _writer = self.write();
        self.lease.store(lease.as_millis(), Ordering::Release);
    }

    /// Lets go of everything. `reason` is what launches are told: one line, with the remedy.
    pub fn lose(&self, loss: Loss, reason: impl Into<Arc<str>>) {
        let _writer = self.write();
        self.store(State::Without(Unavailable { loss, reason: reason.into() }));
    }

    /// What is held right now.
    #[must_use]
    pub fn holding(&self) -> Holding {
        match self.current() {
            Ok(generation) => Holding::Ready { generation, lease_left: self.lease_left() },
            Err(unavailable) => Holding::Without(unavailable),
        }
    }

    /// What is left of the lease; zero where nothing is held.
    #[must_use]
    pub fn lease_left(&self) -> Duration {
        BootTime::from_millis(self.lease.load(Ordering::Acquire)).since(BootTime::now())
    }

    /// Wakes at every [`Self::replace`] and [`Self::lose`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Lets go of a generation whose lease is over; of none that has just come.
    fn expire(&self) {
        let _writer = self.write();
        if matches!(&**self.state.load(), State::Ready(_)) && self.lease_left() == Duration::ZERO {
            let reason = "the control plane has been away for longer than server.max_stale, and secrets are not served \
                          past it: restore the connection (devbox-secretsd status says what fails)";
            self.store(State::Without(Unavailable { loss: Loss::Stale, reason: reason.into() }));
        }
    }

    /// The caller holds `writer`.
    fn store(&self, state: State) {
        self.state.store(Arc::new(state));
        self.changes.send_replace(());
    }

    fn write(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test_support::{SealedBundle, memories};

    fn generation(revision: u64) -> Generation {
        SealedBundle::new(revision, &[("A", b"one")]).open(&memories()[0]).unwrap()
    }

    fn in_an_hour() -> BootTime {
        BootTime::now() + Duration::from_secs(3_600)
    }

    #[test]
    fn before_the_first_bundle_the_reason_is_told() {
        let vault = Vault::new("still enrolling");
        let unavailable = vault.current().unwrap_err();
        assert_eq!((unavailable.loss, &*unavailable.reason), (Loss::Starting, "still enrolling"));
    }

    #[test]
    fn nothing_is_served_past_the_lease_though_no_timer_ran() {
        let memory = &memories()[0];
        let sealed = SealedBundle::new(1, &[("A", b"one")]);
        let vault = Vault::new("");
        vault.replace(sealed.open(memory).unwrap(), BootTime::now());
        assert_eq!(vault.current().unwrap_err().loss, Loss::Stale);
        assert_eq!(memory.bytes_locked(), 0, "the generation is wiped, not only hidden");
    }

    #[test]
    fn a_renewed_lease_keeps_the_generation() {
        let vault = Vault::new("");
        vault.replace(generation(1), in_an_hour());
        vault.renew_lease(BootTime::now() + Duration::from_secs(7_200));
        assert!(vault.lease_left() > Duration::from_secs(7_000));
        assert_eq!(vault.current().unwrap().revision(), 1);
    }

    #[test]
    fn readers_keep_a_replaced_generation_until_they_let_go() {
        let memory = &memories()[0];
        let sealed = SealedBundle::new(1, &[("A", b"one")]);
        let vault = Vault::new("");
        vault.replace(sealed.open(memory).unwrap(), in_an_hour());
        let reader = vault.current().unwrap();
        vault.replace(generation(2), in_an_hour());
        assert_eq!(reader.strings(), b"A=one\0");
        drop(reader);
        assert_eq!(memory.bytes_locked(), 0);
        assert_eq!(vault.current().unwrap().revision(), 2);
    }

    #[test]
    fn a_loss_wipes_at_once_and_wakes_who_watches() {
        let memory = &memories()[0];
        let vault = Vault::new("");
        vault.replace(SealedBundle::new(1, &[("A", b"one")]).open(memory).unwrap(), in_an_hour());
        let mut changes = vault.changes();
        changes.mark_unchanged();
        vault.lose(Loss::Revoked, "the devbox was shut down");
        assert!(changes.has_changed().unwrap());
        assert_eq!(memory.bytes_locked(), 0);
        assert_eq!(vault.current().unwrap_err().loss.code(), ErrorCode::Denied);
    }
}
