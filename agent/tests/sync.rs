//! The long poll against a control plane with real TLS and real HPKE.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use devbox_secretsd::identity::enroll::redeem;
use devbox_secretsd::memory::{Holding, Loss, Vault};
use devbox_secretsd::sync::{PollTimes, Poller, Progress, expiry};
use devbox_secretsd::sys::{Alarm, Requirement, SecretMemory, now_ms};
use hyper::StatusCode;
use rustls::NamedGroup;
use tokio::time::{sleep, timeout};

use devbox_secrets_tests::authority::{DEVBOX, Validity};
use support::control_plane::{ControlPlane, Script, bundle, variables};

const LIMIT: usize = 1 << 20;

/// A daemon's synchronising half.
struct Half {
    vault: Arc<Vault>,
    progress: Arc<Progress>,
    poller: Poller<'static>,
}

async fn join(plane: &ControlPlane, max_stale: Duration) -> Half {
    let identity = redeem(&plane.url(), &plane.authority.token()).await.unwrap();
    let (vault, progress) = (Arc::new(Vault::new("starting")), Arc::new(Progress::default()));
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let times = PollTimes { poll_wait: Duration::from_millis(100), max_stale };
    let poller = Poller::new(
        plane.url(),
        identity,
        memory,
        Arc::clone(&vault),
        Arc::clone(&progress),
        times,
        Arc::default(),
    );
    Half { vault, progress, poller }
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Half {
    fn revision(&self) -> Option<u64> {
        self.vault.current().ok().map(|generation| generation.revision())
    }

    fn strings(&self) -> Vec<u8> {
        self.vault.current().unwrap().strings().to_vec()
    }

    fn failure(&self) -> String {
        self.progress.snapshot().failure.map(|failure| failure.message).unwrap_or_default()
    }

    fn loss(&self) -> Option<(Loss, String)> {
        match self.vault.holding() {
            Holding::Ready { .. } => None,
            Holding::Without(unavailable) => Some((unavailable.loss, unavailable.reason.to_string())),
        }
    }

    /// One turn that must leave `revision` held and say `failure`.
    async fn fails(&mut self, revision: Option<u64>, failure: &str) {
        self.poller.turn().await;
        assert_eq!(self.revision(), revision);
        assert!(self.failure().contains(failure), "{:?} lacks {failure:?}", self.failure());
    }
}

#[tokio::test]
async fn bundles_are_taken_up_in_turn_each_under_a_key_of_its_own() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one"), ("B", "two\nlines")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    assert_eq!(half.strings(), b"A=one\0B=two\nlines\0");
    plane.answer(bundle(2, &[("A", "changed")]));
    half.poller.turn().await;
    assert_eq!(half.strings(), b"A=changed\0");

    let seen = plane.seen();
    assert_eq!(seen.bundles, [None, Some(1)]);
    assert_ne!(seen.keys[0], seen.keys[1]);
    assert_eq!(half.failure(), "");
}

#[tokio::test]
async fn one_post_quantum_connection_carries_all_polls() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    for revision in 2..6 {
        half.poller.turn().await;
        plane.answer(bundle(revision, &[("A", "one")]));
    }
    // One to enrol, one to poll.
    assert_eq!(plane.seen().exchanges, [NamedGroup::X25519MLKEM768; 2]);
    assert_eq!(plane.seen().bundles.len(), 4);
}

#[tokio::test]
async fn an_unchanged_bundle_renews_the_lease() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    assert!(half.vault.renew_lease(devbox_secretsd::sys::BootTime::now() + Duration::from_secs(60)));
    half.poller.turn().await;
    assert!(half.vault.lease_left() > Duration::from_secs(3_000));
    assert_eq!(half.revision(), Some(1));
}

#[tokio::test]
async fn an_invalid_bundle_is_refused_whole_and_the_old_one_stays() {
    let plane = ControlPlane::start(bundle(5, &[("A", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;

    plane.answer(Script::Garbage);
    half.fails(Some(5), "is not a bundle").await;
    plane.answer(Script::Truncated(6, variables(&[("A", "two")])));
    half.fails(Some(5), "cut short").await;
    plane.answer(Script::ForAnother(6, variables(&[("A", "two")])));
    half.fails(Some(5), "does not open").await;
    plane.answer(bundle(4, &[("A", "older")]));
    half.fails(Some(5), "revision 4 after 5").await;
    plane.answer(bundle(6, &[("A", "two")]));
    half.poller.turn().await;
    assert_eq!((half.revision(), half.failure()), (Some(6), String::new()));
}

/// More than the daemon's limit of 1 MiB.
fn too_large(revision: u64) -> Script {
    let secrets = (0..11).map(|n| (format!("A{n}"), vec![b'x'; 100_000])).collect();
    Script::Bundle(revision, secrets)
}

#[tokio::test]
async fn a_bundle_over_the_memory_limit_is_refused_with_the_limit() {
    let plane = ControlPlane::start(too_large(1)).await;
    let mut half = join(&plane, HOUR).await;
    half.fails(None, "1048576").await;
}

#[tokio::test]
async fn old_secrets_are_dropped_when_a_new_bundle_does_not_fit() {
    let plane = ControlPlane::start(bundle(1, &[("DELETED", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    plane.answer(too_large(2));
    half.fails(None, "1048576").await;
    plane.answer(bundle(3, &[("A", "fits")]));
    half.poller.turn().await;
    assert_eq!(half.revision(), Some(3));
}

#[tokio::test]
async fn a_shut_down_devbox_loses_its_secrets_at_once_and_gets_none_older_later() {
    let plane = ControlPlane::start(bundle(3, &[("A", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    let pause = half.poller.turn().await;
    assert!(pause >= Duration::from_secs(10), "{pause:?}");
    let (loss, reason) = half.loss().unwrap();
    assert_eq!(loss, Loss::Revoked);
    assert!(reason.contains("the devbox was shut down"), "{reason}");

    plane.answer(bundle(2, &[("A", "older")]));
    half.fails(None, "revision 2 after 3").await;
    plane.answer(bundle(3, &[("A", "one")]));
    half.poller.turn().await;
    assert_eq!(half.revision(), Some(3));
}

#[tokio::test]
async fn a_server_in_trouble_leaves_what_is_held_and_the_pauses_grow() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    plane.answer(Script::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "database gone"));
    half.fails(Some(1), "database gone").await;
    plane.answer(Script::HangUp);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        pauses.push(half.poller.turn().await);
    }
    assert_eq!(half.revision(), Some(1));
    assert!(half.failure().contains("broke"), "{}", half.failure());
    assert!(pauses[4] > pauses[0], "{pauses:?}");
    plane.answer(bundle(2, &[("A", "two")]));
    half.poller.turn().await;
    assert_eq!(half.revision(), Some(2));
}

#[tokio::test]
async fn launches_that_wait_learn_what_keeps_the_first_bundle_away() {
    let plane = ControlPlane::start(Script::Refuse(StatusCode::BAD_GATEWAY, "behind a proxy")).await;
    let mut half = join(&plane, HOUR).await;
    half.poller.turn().await;
    let (loss, reason) = half.loss().unwrap();
    assert_eq!(loss, Loss::Starting);
    assert!(reason.contains("behind a proxy"), "{reason}");
}

#[tokio::test]
async fn without_the_control_plane_the_secrets_are_wiped_at_the_end_of_the_lease() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    let mut half = join(&plane, Duration::from_secs(5)).await;
    half.poller.turn().await;
    assert_eq!(half.revision(), Some(1));
    let weak = Arc::downgrade(&half.vault.current().unwrap());
    tokio::spawn(expiry::watch(Arc::clone(&half.vault), Arc::clone(&half.progress), Alarm::new().unwrap()));
    // No launch asks for the secrets: the watch alone drops them.
    let wiped = async {
        while weak.upgrade().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(support::PATIENCE, wiped).await.unwrap();
    assert_eq!(half.loss().unwrap().0, Loss::Stale);
}

#[tokio::test]
async fn a_waning_certificate_is_renewed_and_the_next_one_used() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    *plane.issued_validity.lock().unwrap() = Validity::WANING;
    let mut half = join(&plane, HOUR).await;
    let waning = half.progress.snapshot().certificate.unwrap();
    *plane.issued_validity.lock().unwrap() = Validity::NORMAL;
    half.poller.turn().await;
    assert_eq!(plane.seen().renewed, 1);
    assert_ne!(half.progress.snapshot().certificate.unwrap(), waning);
    assert_eq!(half.revision(), Some(1));
    half.poller.turn().await;
    assert_eq!(plane.seen().renewed, 1);
}

#[tokio::test]
async fn a_refused_renewal_does_not_end_service_before_the_certificate_does() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    *plane.issued_validity.lock().unwrap() = Validity::WANING;
    let mut half = join(&plane, HOUR).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "later"));
    half.poller.turn().await;
    half.poller.turn().await;
    assert_eq!((half.revision(), plane.seen().renewed), (Some(1), 1));
}

#[tokio::test]
async fn an_expired_certificate_ends_service() {
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    *plane.issued_validity.lock().unwrap() = Validity { age: Duration::from_secs(3_600), left: 15 };
    let mut half = join(&plane, HOUR).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "later"));
    half.poller.turn().await;
    assert_eq!(half.revision(), Some(1));
    let expiry = half.progress.snapshot().certificate.unwrap().not_after_ms;
    tokio::spawn(expiry::watch(Arc::clone(&half.vault), Arc::clone(&half.progress), Alarm::new().unwrap()));
    let mut changes = half.vault.changes();
    let lost = changes.wait_for(|()| half.loss().is_some());
    timeout(support::PATIENCE, lost).await.unwrap().unwrap();
    assert!(now_ms() > expiry);
    assert_eq!(half.loss().unwrap().0, Loss::Revoked);
    half.fails(None, "expired").await;
    assert_eq!(plane.seen().bundles.len(), 1, "{DEVBOX} asked with an expired certificate");
}
