//! Wipes the secrets when the lease or the certificate expires, whatever the network does.

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

/// Pause between two checks if the kernel refuses a timer.
const WITHOUT_TIMER: Duration = Duration::from_secs(5);

/// The line that launches get after the certificate's expiry.
pub(super) const EXPIRED: &str = "the devbox's certificate has expired without renewal: resume with a fresh join token \
                                  (devbox-secretsd resume)";

/// Watches for ever. The vault itself serves no secret past its lease; this wipes secrets that no launch asks for. It waits for
/// the expiries themselves, on clocks that count the machine's sleep.
pub async fn watch(vault: Arc<Vault>, progress: Arc<Progress>, alarm: Alarm) -> Infallible {
    let mut held = vault.changes();
    let mut synchronised = progress.changes();
    let mut reported = None;
    loop {
        // Before the check, so that a later change wakes.
        held.mark_unchanged();
        synchronised.mark_unchanged();
        let holding = check(&vault, &progress);
        let ended = ended(&holding);
        if let Some(reason) = ended.as_ref().filter(|_| ended != reported) {
            error!(%reason, "secrets wiped");
            service_manager::status(&format!("no secrets: {reason}"));
        }
        reported = ended;
        let ends = ends(&holding, progress.snapshot().certificate, now_ms());
        // Dropped before the wait: a reference held here would keep the pages from being wiped.
        drop(holding);
        select! {
            rung = alarm.ring(ends) => if rung.is_err() { sleep(WITHOUT_TIMER).await },
            _ = held.changed() => {}
            _ = synchronised.changed() => {}
        }
    }
}

/// Watches the machine for ever, and checks it when the kernel's `log` has a new line or `files` change beside its machine-id. The
/// vault itself checks at each access; this wipes at once if there is no access.
pub(crate) async fn watch_machine(
    vault: Arc<Vault>,
    log: Option<File>,
    mut files: Receiver<()>,
) -> Infallible {
    let log = log.and_then(|log| wait_for(log).ok());
    loop {
        // The vault checks the machine at each access.
        drop(vault.holding());
        select! {
            () = readable(log.as_ref()) => {}
            // Never an error: the sender lives as long as the daemon.
            _ = files.changed() => {}
        }
    }
}

async fn readable(log: Option<&AsyncFd<Owned<File>>>) {
    match log {
        // Cleared before the vault reads the log, so that a line that arrives meanwhile wakes again.
        Some(log) => log.readable().await.iter_mut().for_each(|ready| ready.clear_ready()),
        None => pending().await,
    }
}

fn check(vault: &Vault, progress: &Progress) -> Holding {
    let expired = progress.snapshot().certificate.is_some_and(|validity| validity.has_expired(now_ms()));
    let holding = vault.holding();
    if expired && matches!(holding, Holding::Ready { .. }) {
        // Fail closed: with an expired certificate the daemon cannot learn of a revocation.
        vault.lose(Loss::Revoked, EXPIRED);
        return vault.holding();
    }
    holding
}

/// The reason, if secrets expired. A revocation is reported by its own code.
fn ended(holding: &Holding) -> Option<Arc<str>> {
    match holding {
        Holding::Without(lost) if lost.loss == Loss::Stale || &*lost.reason == EXPIRED => {
            Some(Arc::clone(&lost.reason))
        }
        _ => None,
    }
}

/// The next expiries. A past one is not waited for.
fn ends(holding: &Holding, certificate: Option<Validity>, now_ms: i64) -> Ends {
    let certificate = certificate.filter(|validity| !validity.has_expired(now_ms));
    let lease = match holding {
        Holding::Ready { lease_left, .. } => Some(*lease_left),
        Holding::Without(_) => None,
    };
    // Still valid in its last millisecond.
    Ends { lease, calendar_ms: certificate.map(|validity| validity.not_after_ms.saturating_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_expiry_is_waited_for_once() {
        let vault = Vault::new("");
        let end = |now_ms| {
            let validity = Validity { not_before_ms: 0, not_after_ms: 60_000 };
            ends(&vault.holding(), Some(validity), now_ms).calendar_ms
        };
        assert_eq!((end(0), end(60_000), end(60_001)), (Some(60_001), Some(60_001), None));
    }
}
