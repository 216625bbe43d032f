//! The current secrets and the lease that limits how long they may be served, or the [`Loss`] that says why there are none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use devbox_launch_proto::ErrorCode;
use tokio::sync::watch;

use super::Generation;
use crate::machine::{Change, Machine};
use crate::sys::BootTime;
use crate::telemetry::audit::{Kind, audit};

/// Why there are no secrets.
///
/// | loss | set by | a launch gets | `--wait` helps | a new bundle is accepted | ended by |
/// |---|---|---|---|---|---|
/// | `Starting` | start, a bundle that does not fit, resume | `NotReady` | yes | yes | the next bundle |
/// | `Stale` | the lease's expiry | `Stale` | yes | yes | the next bundle |
/// | `Revoked` | 401/403, the certificate's expiry | `Denied` | no | yes | the next bundle |
/// | `Quiesced` | an operator | `NotReady` | yes | no | resume |
/// | `Cloned` | this machine, the control plane | `Denied` | no | no | resume |
/// | `Stopping` | the daemon's end | `NotReady` | at its successor | no | – |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No bundle has arrived yet.
    Starting,
    /// The control plane was unavailable for longer than the lease.
    Stale,
    /// The devbox was shut down, or its certificate expired or was revoked.
    Revoked,
    /// An operator wiped everything before a snapshot.
    Quiesced,
    /// This machine is a copy, or a copy of it uses its identity.
    Cloned,
    /// The daemon is stopping.
    Stopping,
}

impl Loss {
    pub(crate) const ALL: [Self; 6] =
        [Self::Starting, Self::Stale, Self::Revoked, Self::Quiesced, Self::Cloned, Self::Stopping];

    /// A stable word for `status` and logs.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stale => "stale",
            Self::Revoked => "revoked",
            Self::Quiesced => "quiesced",
            Self::Cloned => "cloned",
            Self::Stopping => "stopping",
        }
    }

    #[must_use]
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Starting | Self::Quiesced | Self::Stopping => ErrorCode::NotReady,
            Self::Stale => ErrorCode::Stale,
            Self::Revoked | Self::Cloned => ErrorCode::Denied,
        }
    }

    /// Whether bundles are ignored until [`Vault::reopen`].
    const fn closes(self) -> bool {
        matches!(self, Self::Quiesced | Self::Cloned | Self::Stopping)
    }
}

/// There are no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The reason, for programs.
    pub loss: Loss,
    /// The reason and its remedy, for people, on one line.
    pub reason: Arc<str>,
}

/// The vault's content.
#[derive(Debug, Clone)]
pub enum Holding {
    /// Secrets, within their lease.
    Ready {
        /// The secrets.
        generation: Arc<Generation>,
        /// Time left of the lease.
        lease_left: Duration,
    },
    /// No secrets.
    Without(Unavailable),
}

/// At most one generation, checked at each access: past its lease it is wiped, whether or not a timer ran, because the machine
/// may have slept. On a different machine, the first access wipes it.
#[derive(Debug)]
pub struct Vault {
    state: ArcSwap<State>,
    /// Expiry of the lease, in milliseconds of [`BootTime`].
    lease: AtomicU64,
    /// Locked while `state` changes. Readers never wait for it.
    writer: Mutex<()>,
    changes: watch::Sender<()>,
    machine: Option<Arc<Machine>>,
}

type Writer<'a> = MutexGuard<'a, ()>;

#[derive(Debug)]
enum State {
    Ready(Arc<Generation>),
    Without(Unavailable),
}

impl Vault {
    /// An empty vault. `reason` is the line that launches get until the first bundle.
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

    /// The same, which serves only while `machine` does not change.
    #[must_use]
    pub(crate) fn on(self, machine: Arc<Machine>) -> Self {
        Self { machine: Some(machine), ..self }
    }

    /// The secrets.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn current(&self) -> Result<Arc<Generation>, Unavailable> {
        // Before the lease: a copy of this machine has the original's lease, and must not use it.
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
        // The lease is over: wiped here too, because a timer may not have run while the machine
        // slept.
        self.expire();
        match &**self.state.load() {
            State::Ready(generation) => Ok(Arc::clone(generation)),
            State::Without(unavailable) => Err(unavailable.clone()),
        }
    }

    /// Serves `generation` until `lease`. The one before is wiped when its last reader drops it. If the vault is closed until
    /// [`Self::reopen`], `generation` is wiped instead.
    pub fn replace(&self, generation: Generation, lease: BootTime) {
        let writer = self.write();
        if self.is_closed() {
            return;
        }
        // The lease first, so that no reader finds the new secrets with an expired lease.
        self.lease.store(lease.as_millis(), Ordering::Release);
        self.store(&writer, State::Ready(Arc::new(generation)));
    }

    /// Extends the lease, because the control plane has confirmed the secrets. Returns `false` if it has expired already: the
    /// answer may have waited while the machine slept, and an expired lease is never revived.
    #[must_use]
    pub fn renew_lease(&self, lease: BootTime) -> bool {
        // Under the lock, so that a wipe in between does not leave a lease without secrets.
        let _writer = self.write();
        let is_alive = self.lease_left() > Duration::ZERO;
        if is_alive {
            self.lease.store(lease.as_millis(), Ordering::Release);
        }
        is_alive
    }

    /// Wipes everything. `reason` is the line that launches get, with the remedy. A loss that does not close the vault is ignored
    /// while it is closed.
    pub(crate) fn lose(&self, loss: Loss, reason: impl Into<Arc<str>>) {
        let writer = self.write();
        // A lesser loss must not open a vault that an operator or a clone has closed.
        if loss.closes() || !self.is_closed() {
            self.wipe(&writer, Unavailable { loss, reason: reason.into() });
        }
    }

    /// Wipes everything, because this machine is a copy. A closed vault keeps its loss.
    pub(crate) fn lose_to_a_copy(&self, change: Change) {
        let writer = self.write();
        if !self.is_closed() {
            self.wipe(&writer, Unavailable { loss: Loss::Cloned, reason: change.reason().into() });
        }
    }

    /// Accepts bundles again, whatever the loss was. `reason` is the line that launches get until the first one.
    pub(crate) fn reopen(&self, reason: impl Into<Arc<str>>) {
        let writer = self.write();
        self.wipe(&writer, Unavailable { loss: Loss::Starting, reason: reason.into() });
    }

    /// Waits until the vault is wiped because this machine is a copy.
    pub(crate) async fn cloned(&self) {
        let mut changes = self.changes();
        let is_cloned = || matches!(&**self.state.load(), State::Without(lost) if lost.loss == Loss::Cloned);
        // Never an error: the sender is in `self`, which outlives this future.
        let _ = changes.wait_for(|()| is_cloned()).await;
    }

    /// The content right now.
    #[must_use]
    pub fn holding(&self) -> Holding {
        match self.current() {
            Ok(generation) => Holding::Ready { generation, lease_left: self.lease_left() },
            Err(unavailable) => Holding::Without(unavailable),
        }
    }

    /// Time left of the lease; zero if there are no secrets.
    #[must_use]
    pub fn lease_left(&self) -> Duration {
        BootTime::from_millis(self.lease.load(Ordering::Acquire)).since(BootTime::now())
    }

    /// Wakes at every [`Self::replace`] and [`Self::lose`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn expire(&self) {
        let writer = self.write();
        // Checked again under the lock: a new generation may have arrived.
        if matches!(&**self.state.load(), State::Ready(_)) && self.lease_left() == Duration::ZERO {
            let reason = "the control plane has been unavailable for longer than server.max_stale, and secrets are not \
                          served past it: restore the connection (devbox-secretsd status says what fails)";
            self.wipe(&writer, Unavailable { loss: Loss::Stale, reason: reason.into() });
        }
    }

    /// A closed vault is not checked: there is no secret to wipe, and `resume` accepts the machine as it is.
    fn change_of_machine(&self) -> Option<Change> {
        self.machine.as_ref().filter(|_| !self.is_closed())?.change()
    }

    fn is_closed(&self) -> bool {
        matches!(&**self.state.load(), State::Without(unavailable) if unavailable.loss.closes())
    }

    /// Clears the lease first, so that no reader pairs the old lease with the next state.
    fn wipe(&self, writer: &Writer<'_>, unavailable: Unavailable) {
        self.lease.store(0, Ordering::Release);
        self.store(writer, State::Without(unavailable));
    }

    fn store(&self, _writer: &Writer<'_>, state: State) {
        let before = self.state.swap(Arc::new(state));
        if let (State::Ready(lost), State::Without(unavailable)) = (&*before, &**self.state.load()) {
            report_wipe(lost, unavailable);
        }
        // Before watchers wake: unless a reader still holds it, it is wiped by then.
        drop(before);
        self.changes.send_replace(());
    }

    fn write(&self) -> Writer<'_> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report_wipe(lost: &Generation, unavailable: &Unavailable) {
    audit!(
        info,
        Kind::Wipe,
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
    fn before_the_first_bundle_a_reader_gets_the_reason() {
        let vault = Vault::new("still enrolling");
        let unavailable = vault.current().unwrap_err();
        assert_eq!((unavailable.loss, &*unavailable.reason), (Loss::Starting, "still enrolling"));
    }

    #[test]
    fn an_expired_lease_serves_no_secret_even_if_no_timer_ran() {
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
    fn an_expired_lease_is_not_renewed() {
        let vault = Vault::new("");
        vault.replace(generation(1), BootTime::now());
        assert!(!vault.renew_lease(in_an_hour()));
        assert_eq!(vault.current().unwrap_err().loss, Loss::Stale);
    }

    #[test]
    fn a_loss_ends_the_lease() {
        let vault = Vault::new("");
        vault.replace(generation(1), in_an_hour());
        vault.lose(Loss::Revoked, "the devbox was shut down");
        assert_eq!(vault.lease_left(), Duration::ZERO);
        assert!(!vault.renew_lease(in_an_hour()));
    }

    #[test]
    fn readers_keep_a_replaced_generation_until_they_drop_it() {
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
    fn another_machine_serves_no_secret_and_accepts_no_bundle_until_it_is_reopened() {
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
    fn a_quiesced_vault_ignores_a_bundle_that_was_in_progress() {
        let memory = &memories()[0];
        let vault = Vault::new("");
        vault.lose(Loss::Quiesced, "for a snapshot");
        vault.replace(SealedBundle::new(1, &[("A", b"one")]).open(memory).unwrap(), in_an_hour());
        vault.lose(Loss::Starting, "a lesser loss");
        assert_eq!(vault.current().unwrap_err().loss, Loss::Quiesced);
        assert_eq!(memory.bytes_locked(), 0);
    }

    #[test]
    fn a_loss_wipes_at_once_and_wakes_watchers() {
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
