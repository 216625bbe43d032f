//! Whether units can be served now, or had better wait in the kernel's queue.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::memory::{Loss, Vault};

/// A wait without a bound: the daemon stops first.
const UNBOUNDED: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The states of a vault in which waiting helps. Time is counted from the start of each.
pub(super) struct Passing<'v> {
    vault: &'v Vault,
    changes: watch::Receiver<()>,
    patience: Duration,
    state: Option<(Loss, Instant)>,
}

impl<'v> Passing<'v> {
    pub(super) fn new(vault: &'v Vault, patience: Duration) -> Self {
        Self { vault, changes: vault.changes(), patience, state: None }
    }

    /// Waits until units can be served: there are secrets, there will be none, or this state has
    /// lasted too long.
    pub(super) async fn ended(&mut self) {
        while let Some(until) = self.until() {
            // The vault outlives this, so the channel does not close.
            if timeout_at(until, self.changes.changed()).await.is_err() {
                warn!(
                    "there have been no secrets for too long: units that ask for credentials are refused until there are"
                );
                return;
            }
        }
    }

    pub(super) fn is_on(&mut self) -> bool {
        self.until().is_some()
    }

    /// The time until which units wait, if they do.
    fn until(&mut self) -> Option<Instant> {
        let unavailable = self.vault.current().err().filter(|unavailable| unavailable.loss.code().may_pass());
        let Some(loss) = unavailable.map(|unavailable| unavailable.loss) else {
            self.state = None;
            return None;
        };
        let now = Instant::now();
        let until = match self.state {
            Some((same, until)) if same == loss => until,
            // A stopping daemon serves no unit: its successor does, from the socket's queue, which
            // systemd keeps.
            _ if loss == Loss::Stopping => now + UNBOUNDED,
            _ => now + self.patience,
        };
        self.state = Some((loss, until));
        (until > now).then_some(until)
    }
}
