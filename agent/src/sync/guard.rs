//! Ends service on time: at the end of the lease, and at the end of the certificate, whatever the network does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::error;

use super::Progress;
use crate::identity::Validity;
use crate::identity::certificate::now_ms;
use crate::machine::Machine;
use crate::memory::{Holding, Loss, Vault};
use crate::telemetry::service_manager;

/// Longest time between two looks: timers stand still while the machine sleeps, leases do not.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at the machine.
const MACHINE_PAUSE: Duration = Duration::from_secs(1);
/// Shortest time between two looks: clocks are read in milliseconds.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// What launches are told after the certificate's end.
pub(super) const EXPIRED: &str = "the devbox's certificate has expired without renewal: resume with a fresh join token \
                                  (devbox-secretsd resume)";

/// Watches for ever. The vault itself serves nothing past its lease; this wipes what nobody asks for.
pub async fn watch(vault: Arc<Vault>, progress: Arc<Progress>) -> Infallible {
    let mut told = None;
    loop {
        let holding = look(&vault, &progress);
        let ended = ended(&holding);
        if let Some(reason) = ended.as_ref().filter(|_| ended != told) {
            error!(%reason, "secrets wiped");
            service_manager::status(&format!("no secrets: {reason}"));
        }
        told = ended;
        let pause = pause(&holding, progress.snapshot().certificate, now_ms());
        // Dropped before the sleep: what is held here would not be wiped.
        drop(holding);
        sleep(pause).await;
    }
}

/// Watches the machine for ever. The vault itself looks before it serves; this wipes where nobody asks.
pub async fn watch_machine(vault: Arc<Vault>, machine: Arc<Machine>) -> Infallible {
    loop {
        if let Some(change) = machine.change_of_boot() {
            vault.lose_to_a_copy(change);
        }
        // Dropped at once; the vault looks by itself.
        drop(vault.holding());
        sleep(MACHINE_PAUSE).await;
    }
}

fn look(vault: &Vault, progress: &Progress) -> Holding {
    let expired = progress.snapshot().certificate.is_some_and(|validity| validity.has_expired(now_ms()));
    let holding = vault.holding();
    if expired && matches!(holding, Holding::Ready { .. }) {
        vault.lose(Loss::Revoked, EXPIRED);
        return vault.holding();
    }
    holding
}

/// The end that time has brought; who revokes tells it himself.
fn ended(holding: &Holding) -> Option<Arc<str>> {
    match holding {
        Holding::Without(lost) if lost.loss == Loss::Stale || &*lost.reason == EXPIRED => {
            Some(Arc::clone(&lost.reason))
        }
        _ => None,
    }
}

/// Until the next end. One that is over is waited for no more.
fn pause(holding: &Holding, certificate: Option<Validity>, now_ms: i64) -> Duration {
    let certificate = certificate.filter(|validity| !validity.has_expired(now_ms));
    let lease = match holding {
        Holding::Ready { lease_left, .. } => Some(*lease_left),
        Holding::Without(_) => None,
    };
    let soonest = certificate.map(|validity| validity.left(now_ms)).into_iter().chain(lease).min();
    soonest.unwrap_or(MAX_PAUSE).clamp(MIN_PAUSE, MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_met_and_not_looked_for_afterwards() {
        let vault = Vault::new("");
        let pause = |now_ms| {
            let validity = Validity { not_before_ms: 0, not_after_ms: 60_000 };
            pause(&vault.holding(), Some(validity), now_ms)
        };
        assert_eq!(pause(0), MAX_PAUSE);
        assert_eq!(pause(59_000), Duration::from_secs(1));
        assert_eq!(pause(60_000), MIN_PAUSE);
        assert_eq!(pause(60_001), MAX_PAUSE);
    }
}
