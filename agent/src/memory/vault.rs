//! What the daemon holds right now, and until when it may serve it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use devbox_launch_proto::ErrorCode;
use tokio::sync::watch;
use tracing::info;

use super::Generation;
use crate::machine::{Change, Machine};
use crate::sys::BootTime;
use crate::telemetry::audit::{Kind, TARGET};

/// Why the daemon holds no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It has not had any yet: a launch may wait.
    Starting,
    /// The control plane was away for longer than the lease.
    Stale,
    /// The devbox was shut down, its certificate expired or was revoked.
    Revoked,
    /// An operator had everything wiped before a snapshot: a launch may wait.
    Quiesced,
    /// This machine is a copy of another, or another goes on with its identity.
    Cloned,
    /// The daemon is stopping.
    Stopping,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Stale, Self::Revoked, Self::Quiesced, Self::Cloned, Self::Stopping];

    /// A stable word for `status` and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stale => "stale",
            Self::Revoked => "revoked",
            Self::Quiesced => "quiesced",
            Self::Cloned => "cloned",
            Self::Stopping => "stopping",
        }
    }

    /// What a launch is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Starting | Self::Quiesced | Self::Stopping => ErrorCode::NotReady,
            Self::Stale => ErrorCode::Stale,
            Self::Revoked | Self::Cloned => ErrorCode::Denied,
        }
    }

    /// Whether nothing is taken up after it until [`Vault::reopen`].
    const fn closes(self) -> bool {
        matches!(self, Self::Quiesced | Self::Cloned | Self::Stopping)
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
/// ran (the machine may have slept). None on another machine than it was filled on: whoever asks there first has it lost.
#[derive(Debug)]
pub struct Vault {
    state: ArcSwap<State>,
    /// End of the lease, in milliseconds of [`BootTime`].
    lease: AtomicU64,
    /// Held by whoever changes `state`.
    writer: Mutex<()>,
    changes: watch::Sender<()>,
    machine: Option<Arc<Machine>>,
}

/// The right to change a vault's state.
type Writer<'a> = MutexGuard<'a, ()>;

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
            machine: None,
        }
    }

    /// The same, which serves only as long as `machine` is the one that it is now.
    #[must_use]
    pub fn on(self, machine: Arc<Machine>) -> Self {
        Self { machine: Some(machine), ..self }
    }

    /// The secrets, or why there are none.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn current(&self) -> Result<Arc<Generation>, Unavailable> {
        if let Some(change) = self.change_of_machine() {
            self.lose_to_a_copy(change);
        }
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

    /// Holds `generation` from now on, until `lease`. The one before is wiped at its last release. Where everything was lost until
    /// [`Self::reopen`], it is `generation` that is wiped.
    pub fn replace(&self, generation: Generation, lease: BootTime) {
        let writer = self.write();
        if self.is_closed() {
            return;
        }
        self.lease.store(lease.as_millis(), Ordering::Release);
        self.store(&writer, State::Ready(Arc::new(generation)));
    }

    /// The control plane has confirmed what is held: it may be served until `lease`. Says no where the lease has ended: the answer may
    /// have waited while the machine slept, and confirms nothing any more.
    #[must_use]
    pub fn renew_lease(&self, lease: BootTime) -> bool {
        let _writer = self.write();
        let is_alive = self.lease_left() > Duration::ZERO;
        if is_alive {
            self.lease.store(lease.as_millis(), Ordering::Release);
        }
        is_alive
    }

    /// Lets go of everything. `reason` is what launches are told: one line, with the remedy. A lesser loss does not undo
    /// [`Loss::Quiesced`], [`Loss::Cloned`] or [`Loss::Stopping`].
    pub fn lose(&self, loss: Loss, reason: impl Into<Arc<str>>) {
        let writer = self.write();
        if loss.closes() || !self.is_closed() {
            self.let_go(&writer, Unavailable { loss, reason: reason.into() });
        }
    }

    /// Lets go of everything, because this machine is a copy; of nothing where nothing can be taken up in any case.
    pub fn lose_to_a_copy(&self, change: Change) {
        let writer = self.write();
        if !self.is_closed() {
            self.let_go(&writer, Unavailable { loss: Loss::Cloned, reason: change.reason().into() });
        }
    }

    /// Secrets may come again, whatever was lost. `reason` is what launches are told meanwhile.
    pub fn reopen(&self, reason: impl Into<Arc<str>>) {
        let writer = self.write();
        self.let_go(&writer, Unavailable { loss: Loss::Starting, reason: reason.into() });
    }

    /// Waits until this machine is known for a copy.
    pub async fn cloned(&self) {
        let mut changes = self.changes();
        let is_cloned = || matches!(&**self.state.load(), State::Without(lost) if lost.loss == Loss::Cloned);
        // The vault outlives who waits: this never is the end of the channel.
        let _ = changes.wait_for(|()| is_cloned()).await;
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
        let writer = self.write();
        if matches!(&**self.state.load(), State::Ready(_)) && self.lease_left() == Duration::ZERO {
            let reason = "the control plane has been away for longer than server.max_stale, and secrets are not served \
                          past it: restore the connection (devbox-secretsd status says what fails)";
            self.let_go(&writer, Unavailable { loss: Loss::Stale, reason: reason.into() });
        }
    }

    /// Nobody looks where nothing is held until [`Self::reopen`].
    fn change_of_machine(&self) -> Option<Change> {
        self.machine.as_ref().filter(|_| !self.is_closed())?.change()
    }

    fn is_closed(&self) -> bool {
        matches!(&**self.state.load(), State::Without(unavailable) if unavailable.loss.closes())
    }

    /// The lease ends first: nobody sees it with what comes after.
    fn let_go(&self, writer: &Writer<'_>, unavailable: Unavailable) {
        self.lease.store(0, Ordering::Release);
        self.store(writer, State::Without(unavailable));
    }

    fn store(&self, _writer: &Writer<'_>, state: State) {
        let before = self.state.swap(Arc::new(state));
        if let (State::Ready(lost), State::Without(unavailable)) = (&*before, &**self.state.load()) {
            report_wipe(lost, unavailable);
        }
        drop(before);
        self.changes.send_replace(());
    }

    fn write(&self) -> Writer<'_> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report_wipe(lost: &Generation, unavailable: &Unavailable) {
    info!(
        target: TARGET,
        event = Kind::Wipe.word(),
        code = unavailable.loss.word(),
        revision = lost.revision(),
        count = lost.count(),
        reason = &*unavailable.reason,
        "secrets wiped"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test_support::SealedBundle;
    use crate::sys::test_support::memories;

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
        assert!(vault.renew_lease(BootTime::now() + Duration::from_secs(7_200)));
        assert!(vault.lease_left() > Duration::from_secs(7_000));
        assert_eq!(vault.current().unwrap().revision(), 1);
    }

    #[test]
    fn a_lease_that_has_ended_is_not_renewed() {
        let vault = Vault::new("");
        vault.replace(generation(1), BootTime::now());
        assert!(!vault.renew_lease(in_an_hour()));
        assert_eq!(vault.current().unwrap_err().loss, Loss::Stale);
    }

    #[test]
    fn a_lease_ends_with_what_it_is_of() {
        let vault = Vault::new("");
        vault.replace(generation(1), in_an_hour());
        vault.lose(Loss::Revoked, "the devbox was shut down");
        assert_eq!(vault.lease_left(), Duration::ZERO);
        assert!(!vault.renew_lease(in_an_hour()));
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
    fn nothing_is_served_on_another_machine_and_nothing_taken_up_until_it_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        std::fs::write(&path, "a".repeat(32)).unwrap();
        let machine = Arc::new(Machine::with_id_at(&path));
        let vault = Vault::new("").on(Arc::clone(&machine));
        vault.replace(generation(1), in_an_hour());
        assert_eq!(vault.current().unwrap().revision(), 1);
        let copy = dir.path().join("copy");
        std::fs::write(&copy, "b".repeat(32)).unwrap();
        std::fs::rename(copy, &path).unwrap();
        assert_eq!(vault.current().unwrap_err().loss, Loss::Cloned);
        vault.replace(generation(2), in_an_hour());
        vault.lose(Loss::Starting, "a lesser loss");
        assert_eq!(vault.current().unwrap_err().loss, Loss::Cloned);
        machine.accept();
        vault.reopen("joining anew");
        vault.replace(generation(3), in_an_hour());
        assert_eq!(vault.current().unwrap().revision(), 3);
    }

    #[test]
    fn a_quiesced_vault_takes_nothing_up_that_was_under_way() {
        let memory = &memories()[0];
        let vault = Vault::new("");
        vault.lose(Loss::Quiesced, "for a snapshot");
        vault.replace(SealedBundle::new(1, &[("A", b"one")]).open(memory).unwrap(), in_an_hour());
        vault.lose(Loss::Starting, "a lesser loss");
        assert_eq!(vault.current().unwrap_err().loss, Loss::Quiesced);
        assert_eq!(memory.bytes_locked(), 0);
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
