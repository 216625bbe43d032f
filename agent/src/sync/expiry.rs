//! Ends service on time: at the end of the lease, and at the end of the certificate, whatever the network does.

use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::select;
use tokio::sync::watch::Receiver;
use tokio::time::sleep;
use tracing::error;

use super::Progress;
use crate::identity::Validity;
use crate::memory::{Holding, Loss, Vault};
use crate::sys::{Alarm, Ends, Owned, now_ms, wait_for};
use crate::telemetry::service_manager;

/// Between two looks, should the kernel refuse a timer.
const WITHOUT_TIMER: Duration = Duration::from_secs(5);

/// What launches are told after the certificate's end.
pub(super) const EXPIRED: &str = "the devbox's certificate has expired without renewal: resume with a fresh join token \
                                  (devbox-secretsd resume)";

/// Watches for ever. The vault itself serves nothing past its lease; this wipes what nobody asks for. It waits for the ends
/// themselves, on clocks that count the machine's sleep.
pub async fn watch(vault: Arc<Vault>, progress: Arc<Progress>, alarm: Alarm) -> Infallible {
    let (mut held, mut synchronised) = (vault.changes(), progress.changes());
    let mut told = None;
    loop {
        // Before the look: changes after it wake.
        held.mark_unchanged();
        synchronised.mark_unchanged();
        let holding = look(&vault, &progress);
        let ended = ended(&holding);
        if let Some(reason) = ended.as_ref().filter(|_| ended != told) {
            error!(%reason, "secrets wiped");
            service_manager::status(&format!("no secrets: {reason}"));
        }
        told = ended;
        let ends = ends(&holding, progress.snapshot().certificate, now_ms());
        // Dropped before the wait: what is held here would not be wiped.
        drop(holding);
        select! {
            rung = alarm.ring(ends) => if rung.is_err() { sleep(WITHOUT_TIMER).await },
            _ = held.changed() => {}
            _ = synchronised.changed() => {}
        }
    }
}

/// Watches the machine for ever: whenever the kernel's `log` has a new line, or `files` change beside its machine-id. The
/// vault itself looks before it serves, and at each poll; this wipes at once if nobody asks.
pub(crate) async fn watch_machine(
    vault: Arc<Vault>,
    log: Option<File>,
    mut files: Receiver<()>,
) -> Infallible {
    let log = log.and_then(|log| wait_for(log).ok());
    loop {
        // Dropped at once; the vault looks by itself.
        drop(vault.holding());
        select! {
            () = readable(log.as_ref()) => {}
            // Its sender outlives the daemon's service.
            _ = files.changed() => {}
        }
    }
}

async fn readable(log: Option<&AsyncFd<Owned<File>>>) {
    match log {
        // Cleared before the vault reads it: a line that comes meanwhile wakes again.
        Some(log) => log.readable().await.iter_mut().for_each(|ready| ready.clear_ready()),
        None => pending().await,
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

/// The next ends. One that is over is waited for no more.
fn ends(holding: &Holding, certificate: Option<Validity>, now_ms: i64) -> Ends {
    let certificate = certificate.filter(|validity| !validity.has_expired(now_ms));
    let lease = match holding {
        Holding::Ready { lease_left, .. } => Some(*lease_left),
        Holding::Without(_) => None,
    };
    // In its last millisecond it is still valid.
    Ends { lease, calendar_ms: certificate.map(|validity| validity.not_after_ms.saturating_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_met_and_not_looked_for_afterwards() {
        let vault = Vault::new("");
        let end = |now_ms| {
            let validity = Validity { not_before_ms: 0, not_after_ms: 60_000 };
            ends(&vault.holding(), Some(validity), now_ms).calendar_ms
        };
        assert_eq!((end(0), end(60_000), end(60_001)), (Some(60_001), Some(60_001), None));
    }
}
