use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::devbox::{BOOT_LEN, BundleRequest, Continuity, STEP_LEN};
use devbox_secrets_proto::seal::{BundleKey, Context};

use super::*;

/// The first step of a daemon that just started.
fn started() -> Continuity {
    Continuity { boot: "b".repeat(BOOT_LEN), after: None, step: "5".repeat(STEP_LEN) }
}

/// A daemon as far as bundles go.
pub(super) struct Daemon {
    key: BundleKey,
    peer: DevboxPeer,
}

impl Daemon {
    pub(super) fn new(peer: DevboxPeer) -> Self {
        Self { key: BundleKey::generate(), peer }
    }

    fn request(&self, known_revision: Option<u64>, wait_ms: u32) -> BundleRequest {
        let hpke_public_key = STANDARD.encode(self.key.public_key());
        BundleRequest { hpke_public_key, known_revision, wait_ms, continuity: started() }
    }

    pub(super) async fn fetch(&self, registry: &Registry) -> (u64, Vec<(String, String)>) {
        let message = registry.bundle(&self.peer, &self.request(None, 0)).await.unwrap().unwrap();
        self.open(&message)
    }

    fn open(&self, message: &[u8]) -> (u64, Vec<(String, String)>) {
        let bundle = Bundle::parse(message).unwrap();
        let context = Context {
            devbox_id: self.peer.devbox_id().as_str(),
            revision: bundle.revision,
            count: u32::try_from(bundle.entries.len()).unwrap(),
        };
        let mut opener = self.key.opener(bundle.encapped_key, context).unwrap();
        let values = bundle.entries.iter().map(|entry| {
            let mut value = vec![0; entry.value_len()];
            opener.open_into(entry.label, entry.sealed, &mut value).unwrap();
            (entry.label.env.to_owned(), String::from_utf8(value).unwrap())
        });
        (bundle.revision, values.collect())
    }
}

/// A devbox of a new account that holds what there is: nothing yet.
async fn current() -> (World, Caller, Daemon, u64) {
    let (world, caller, _, peer) = World::with_joined().await;
    let daemon = Daemon::new(peer);
    let (revision, _) = daemon.fetch(&world.registry).await;
    (world, caller, daemon, revision)
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(env, value)| (env.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn a_bundle_opens_to_the_bound_values() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "DATABASE_PASSWORD", "db = \"ü\"\nline two").await;
    world.secret(&caller, "OTHER", "").await;
    let (_, bound) = world.joined(&caller, &[("DB", "DATABASE_PASSWORD")]).await;
    let (_, every) = world.joined(&caller, &[]).await;
    let db = "db = \"ü\"\nline two";
    assert_eq!(Daemon::new(bound).fetch(&world.registry).await.1, pairs([("DB", db)]));
    let all = pairs([("DATABASE_PASSWORD", db), ("OTHER", "")]);
    assert_eq!(Daemon::new(every).fetch(&world.registry).await.1, all);
    let (action, outcome, reason) = world.newest().await;
    assert_eq!((action.as_str(), outcome.as_str()), ("devbox.bundle", "done"));
    assert!(reason.ends_with("2 values"), "{reason}");
}

#[tokio::test]
async fn updates_and_deletions_show_in_the_next_bundle() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "A", "one").await;
    world.secret(&caller, "B", "two").await;
    let (_, peer) = world.joined(&caller, &[("A", "A"), ("B", "B")]).await;
    let daemon = Daemon::new(peer);
    let (first, _) = daemon.fetch(&world.registry).await;
    world.registry.update_secret(&caller, SecretSelector::Name("A"), bytes("changed")).await.unwrap();
    world.registry.delete_secret(&caller, SecretSelector::Name("B")).await.unwrap();
    let (second, values) = daemon.fetch(&world.registry).await;
    assert_eq!(values, pairs([("A", "changed")]));
    assert_eq!(second, first + 2);
    // A new secret of the old name is another one.
    world.secret(&caller, "B", "new").await;
    assert_eq!(daemon.fetch(&world.registry).await.1, pairs([("A", "changed")]));
}

#[tokio::test]
async fn an_unchanged_poll_returns_no_bundle_and_leaves_no_row() {
    let (world, _, daemon, revision) = current().await;
    let rows = world.registry.audit(None, 1000).await.unwrap().len();
    let answer = world.registry.bundle(&daemon.peer, &daemon.request(Some(revision), 5)).await.unwrap();
    assert!(answer.is_none());
    assert_eq!(world.registry.audit(None, 1000).await.unwrap().len(), rows);
    // A revision from the future, after a restore: the daemon's is not the server's.
    let future = daemon.request(Some(revision + 10), 60_000);
    assert!(world.registry.bundle(&daemon.peer, &future).await.unwrap().is_some());
}

/// Starts a held request and returns once it waits.
async fn held(
    world: &World,
    caller: &Caller,
    daemon: &Daemon,
    revision: u64,
) -> tokio::task::JoinHandle<Result<Option<Delivery>, Refusal>> {
    let asked = world.registry.clone();
    let peer = daemon.peer.clone();
    let request = daemon.request(Some(revision), 60_000);
    let held = tokio::spawn(async move { asked.bundle(&peer, &request).await });
    wait::yielding("the request to be held", || world.registry.0.changes.is_waited_for(caller.account()))
        .await;
    held
}

/// Sees what other programs write.
fn watcher(registry: &Registry) -> tokio::task::JoinHandle<()> {
    let registry = registry.clone();
    tokio::spawn(async move { registry.watch().await })
}

#[tokio::test]
async fn a_held_request_is_answered_by_the_next_write() {
    let (world, caller, daemon, revision) = current().await;
    let held = held(&world, &caller, &daemon, revision).await;
    let start = Instant::now();
    world.secret(&caller, "NEW", "value").await;
    let message = held.await.unwrap().unwrap().unwrap();
    assert!(start.elapsed().as_secs() < 10);
    assert_eq!(daemon.open(&message), (revision + 1, pairs([("NEW", "value")])));
}

#[tokio::test]
async fn a_held_request_is_answered_by_another_programs_write() {
    let (world, caller, daemon, revision) = current().await;
    let watcher = watcher(&world.registry);
    let held = held(&world, &caller, &daemon, revision).await;
    let operator = open(&world.state).await.unwrap();
    operator.create_secret(&caller, "NEW", bytes("value")).await.unwrap();
    let message = held.await.unwrap().unwrap().unwrap();
    assert_eq!(daemon.open(&message).1, pairs([("NEW", "value")]));
    watcher.abort();
}

#[tokio::test]
async fn shutting_a_devbox_down_refuses_its_held_request() {
    let (world, caller, devbox, peer) = World::with_joined().await;
    let daemon = Daemon::new(peer);
    let (revision, _) = daemon.fetch(&world.registry).await;
    let held = held(&world, &caller, &daemon, revision).await;
    world.registry.shutdown_devbox(&caller, devbox.id.as_str()).await.unwrap();
    world
        .audited_refusal(held.await.unwrap(), "devbox.bundle", RefusalKind::Forbidden, "devbox_shutdown")
        .await;
}

#[tokio::test]
async fn retiring_a_ca_refuses_the_held_requests_of_the_certificates_that_it_signed() {
    let (world, caller, _, peer) = World::with_joined().await;
    let daemon = Daemon::new(peer);
    let watcher = watcher(&world.registry);
    let operator = open(&world.state).await.unwrap();
    let old = operator.rotate_ca(&Actor::Server).await.unwrap().remove(1);
    let (revision, _) = daemon.fetch(&world.registry).await;
    let held = held(&world, &caller, &daemon, revision).await;
    operator.retire_ca(&Actor::Server, &old.fingerprint).await.unwrap();
    assert_eq!(refusal(held.await.unwrap()), (RefusalKind::Forbidden, "retired_ca"));
    watcher.abort();
}

#[tokio::test]
async fn registering_or_shutting_down_a_devbox_makes_no_other_fetch_again() {
    let (world, caller, daemon, revision) = current().await;
    let held = held(&world, &caller, &daemon, revision).await;
    let (other, _) = world.joined(&caller, &[]).await;
    world.registry.shutdown_devbox(&caller, other.id.as_str()).await.unwrap();
    world.secret(&caller, "NEW", "value").await;
    let message = held.await.unwrap().unwrap().unwrap();
    // A bundle for the devbox that came or went would have ended the wait one revision earlier.
    assert_eq!(daemon.open(&message), (revision + 1, pairs([("NEW", "value")])));
}

#[tokio::test]
async fn taking_the_capability_away_refuses_held_requests_and_every_later_one() {
    let (world, caller, daemon, revision) = current().await;
    let held = held(&world, &caller, &daemon, revision).await;
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    world
        .audited_refusal(held.await.unwrap(), "devbox.bundle", RefusalKind::Forbidden, "no_devbox_capability")
        .await;
    let csr = csr(daemon.peer.devbox_id().as_str());
    let renewed = world.registry.renew(&daemon.peer, &csr).await;
    assert_eq!(refusal(renewed), (RefusalKind::Forbidden, "no_devbox_capability"));
    world.registry.set_devbox_capability(&Actor::Server, "acme", true).await.unwrap();
    assert_eq!(daemon.fetch(&world.registry).await.0, revision);
}

#[tokio::test]
async fn an_operators_program_that_takes_the_capability_away_ends_held_requests_too() {
    let (world, caller, daemon, revision) = current().await;
    let watcher = watcher(&world.registry);
    let held = held(&world, &caller, &daemon, revision).await;
    let operator = open(&world.state).await.unwrap();
    operator.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    assert_eq!(refusal(held.await.unwrap()), (RefusalKind::Forbidden, "no_devbox_capability"));
    watcher.abort();
}

#[tokio::test]
async fn a_write_in_another_account_wakes_no_request_here() {
    let world = World::new().await;
    let (caller, other) = (world.caller("acme").await, world.caller("other").await);
    let (_, peer) = world.joined(&caller, &[]).await;
    let daemon = Daemon::new(peer);
    let (revision, _) = daemon.fetch(&world.registry).await;
    let held = held(&world, &caller, &daemon, revision).await;
    world.secret(&other, "THEIRS", "value").await;
    tokio::task::yield_now().await;
    assert!(!held.is_finished());
    world.secret(&caller, "OURS", "value").await;
    let message = held.await.unwrap().unwrap().unwrap();
    assert_eq!(daemon.open(&message).1, pairs([("OURS", "value")]));
}

#[tokio::test]
async fn an_invalid_key_is_refused() {
    let (world, _, _, peer) = World::with_joined().await;
    for key in [String::new(), "!".to_owned(), STANDARD.encode([1; 32]), STANDARD.encode([0xff; 1217])] {
        let request =
            BundleRequest { hpke_public_key: key, known_revision: None, wait_ms: 0, continuity: started() };
        let refused = world.registry.bundle(&peer, &request).await;
        assert_eq!(refusal(refused), (RefusalKind::Invalid, "invalid_key"));
    }
}

#[tokio::test]
async fn a_bundle_is_for_the_devbox_that_asks_only() {
    let world = World::new().await;
    let (caller, other) = (world.caller("acme").await, world.caller("other").await);
    world.secret(&caller, "OURS", "ours").await;
    world.secret(&other, "THEIRS", "theirs").await;
    let (_, ours) = world.joined(&caller, &[]).await;
    let (_, theirs) = world.joined(&other, &[]).await;
    assert_eq!(Daemon::new(ours).fetch(&world.registry).await.1, pairs([("OURS", "ours")]));
    assert_eq!(Daemon::new(theirs).fetch(&world.registry).await.1, pairs([("THEIRS", "theirs")]));
}
