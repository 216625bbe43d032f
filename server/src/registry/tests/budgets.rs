//! Each budget is used up by one account, devbox or token, while another one's requests continue.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::devbox::{BOOT_LEN, BundleRequest, Continuity, STEP_LEN};
use devbox_secrets_proto::seal::BundleKey;

use super::*;
use crate::config::{Limits, Rate};
use crate::registry::bundles::seal_apart;

const OVER: RefusalKind = RefusalKind::Invalid;

async fn world(limits: Limits) -> (World, Caller, Caller) {
    let world = World::new().await;
    let busy = world.caller("busy").await;
    let other = world.caller("other").await;
    world.registry.set_limits(limits);
    (world, busy, other)
}

fn named(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("ENV_{number}"), "KEY".to_owned())).collect()
}

async fn register(
    world: &World,
    caller: &Caller,
    bindings: Vec<(String, String)>,
) -> Result<DevboxView, Refusal> {
    let secrets = Some(bindings.into_iter().collect());
    let new = NewDevbox { secrets, ..NewDevbox::default() };
    world.registry.create_devbox(caller, new).await.map(|(devbox, _)| devbox)
}

async fn update(world: &World, caller: &Caller, name: &str, len: usize) -> Result<SecretView, Refusal> {
    let value = bytes(&"v".repeat(len));
    world.registry.update_secret(caller, SecretSelector::Name(name), value).await
}

fn bundle_request() -> BundleRequest {
    let hpke_public_key = STANDARD.encode(BundleKey::generate().public_key());
    let continuity = Continuity { boot: "b".repeat(BOOT_LEN), after: None, step: "5".repeat(STEP_LEN) };
    BundleRequest { hpke_public_key, known_revision: None, wait_ms: 0, continuity }
}

async fn fetch(world: &World, peer: &DevboxPeer) -> Result<usize, Refusal> {
    Ok(world.registry.bundle(peer, &bundle_request()).await?.unwrap().len())
}

#[tokio::test]
async fn an_account_at_its_most_secrets_updates_and_deletes_and_creates_no_more() {
    let (world, busy, other) = world(Limits { secrets: 2, ..Limits::default() }).await;
    world.secret(&busy, "A", "v").await;
    world.secret(&busy, "B", "v").await;
    let refused = world.registry.create_secret(&busy, "C", bytes("v")).await;
    assert_eq!(refusal(refused), (OVER, "budget_secrets"));
    update(&world, &busy, "A", 100).await.unwrap();
    world.secret(&other, "C", "v").await;
    world.registry.delete_secret(&busy, SecretSelector::Name("A")).await.unwrap();
    world.secret(&busy, "C", "v").await;
}

#[tokio::test]
async fn an_account_at_its_most_bytes_takes_no_longer_value_and_may_shorten_one() {
    let (world, busy, other) = world(Limits { value_bytes: 1000, ..Limits::default() }).await;
    world.secret(&busy, "A", &"v".repeat(900)).await;
    let refused = world.registry.create_secret(&busy, "B", bytes(&"v".repeat(100))).await;
    assert_eq!(refusal(refused), (OVER, "budget_value_bytes"));
    assert_eq!(refusal(update(&world, &busy, "A", 1000).await), (OVER, "budget_value_bytes"));
    world.secret(&other, "A", &"v".repeat(900)).await;
    // A state that was written under a larger budget: reads, shorter values and deletions work.
    world.registry.set_limits(Limits { value_bytes: 10, ..Limits::default() });
    assert_eq!(refusal(update(&world, &busy, "A", 901).await), (OVER, "budget_value_bytes"));
    update(&world, &busy, "A", 900).await.unwrap();
    update(&world, &busy, "A", 899).await.unwrap();
    world.registry.secret(&busy, SecretSelector::Name("A")).await.unwrap();
    world.registry.delete_secret(&busy, SecretSelector::Name("A")).await.unwrap();
}

#[tokio::test]
async fn an_account_at_its_most_devboxes_ends_one_to_register_another() {
    let (world, busy, other) = world(Limits { devboxes: 1, ..Limits::default() }).await;
    let (devbox, _) = world.devbox(&busy, &[]).await;
    assert_eq!(refusal(register(&world, &busy, vec![]).await), (OVER, "budget_devboxes"));
    world.devbox(&other, &[]).await;
    for _ in 0..2 {
        world.registry.shutdown_devbox(&busy, devbox.id.as_str()).await.unwrap();
    }
    world.devbox(&busy, &[]).await;
    assert_eq!(refusal(register(&world, &busy, vec![]).await), (OVER, "budget_devboxes"));
}

#[tokio::test]
async fn an_account_at_its_most_tokens_revokes_one_to_get_another() {
    let (world, _, _) = world(Limits { tokens: 2, ..Limits::default() }).await;
    let create = async |account| {
        let registry = &world.registry;
        let scopes = Scopes::default();
        registry.create_token(&Actor::Server, account, "t", None, scopes).await.map(|(view, _)| view)
    };
    let token = create("busy").await.unwrap();
    assert_eq!(refusal(create("busy").await), (OVER, "budget_tokens"));
    create("other").await.unwrap();
    world.registry.revoke_token(&Actor::Server, "busy", token.id.as_str()).await.unwrap();
    create("busy").await.unwrap();
}

#[tokio::test]
async fn a_devbox_has_so_many_bindings_and_so_much_metadata() {
    let (world, busy, _) = world(Limits { bindings: 3, metadata_bytes: 10, ..Limits::default() }).await;
    world.secret(&busy, "KEY", "v").await;
    register(&world, &busy, named(3)).await.unwrap();
    assert_eq!(refusal(register(&world, &busy, named(4)).await), (OVER, "budget_bindings"));
    let metadata = BTreeMap::from([("k".to_owned(), "v".repeat(10))]);
    let refused = world.registry.create_devbox(&busy, NewDevbox { metadata, ..NewDevbox::default() }).await;
    assert_eq!(refusal(refused), (OVER, "budget_metadata_bytes"));
}

#[tokio::test]
async fn a_bundle_counts_a_secret_under_many_names_each_time() {
    let (world, busy, _) = world(Limits { bundle_bytes: 10_000, ..Limits::default() }).await;
    world.secret(&busy, "KEY", &"v".repeat(2000)).await;
    register(&world, &busy, named(4)).await.unwrap();
    assert_eq!(refusal(register(&world, &busy, named(5)).await), (OVER, "budget_bundle_bytes"));
    // The update would push the bundle of the devbox with four names over the budget.
    assert_eq!(refusal(update(&world, &busy, "KEY", 3000).await), (OVER, "budget_bundle_bytes"));
    update(&world, &busy, "KEY", 2100).await.unwrap();
}

#[tokio::test]
async fn a_devbox_that_gets_every_secret_bounds_what_the_account_may_add() {
    let (world, busy, _) = world(Limits { bundle_bytes: 5_000, ..Limits::default() }).await;
    world.secret(&busy, "A", &"v".repeat(4000)).await;
    let (devbox, _) = world.devbox(&busy, &[]).await;
    let create = async || world.registry.create_secret(&busy, "B", bytes(&"v".repeat(1000))).await;
    assert_eq!(refusal(create().await), (OVER, "budget_bundle_bytes"));
    assert_eq!(refusal(update(&world, &busy, "A", 5000).await), (OVER, "budget_bundle_bytes"));
    world.registry.shutdown_devbox(&busy, devbox.id.as_str()).await.unwrap();
    create().await.unwrap();
    let refused = world.registry.create_devbox(&busy, NewDevbox::default()).await;
    assert_eq!(refusal(refused), (OVER, "budget_bundle_bytes"), "it would get both");
}

#[tokio::test]
async fn a_bundle_of_an_older_state_that_is_over_the_budget_is_refused_before_a_value_is_read() {
    let (world, busy, other) = world(Limits::default()).await;
    world.secret(&busy, "KEY", &"v".repeat(2000)).await;
    world.secret(&other, "KEY", "v").await;
    let (_, large) = world.joined(&busy, &[("A", "KEY"), ("B", "KEY")]).await;
    let (_, small) = world.joined(&other, &[]).await;
    let len = fetch(&world, &large).await.unwrap();
    assert!((4000..6000).contains(&len), "{len}");
    world.registry.set_limits(Limits { bundle_bytes: 1000, ..Limits::default() });
    let refused = fetch(&world, &large).await;
    world.audited_refusal(refused, "devbox.bundle", RefusalKind::Forbidden, "budget_bundle_bytes").await;
    fetch(&world, &small).await.unwrap();
    update(&world, &busy, "KEY", 10).await.unwrap();
    fetch(&world, &large).await.unwrap();
}

const TWICE_AN_HOUR: Rate = Rate { interval: Duration::from_secs(1800), burst: 2 };

#[tokio::test]
async fn a_token_that_is_used_too_often_waits_and_another_one_does_not() {
    let (world, _, _) = world(Limits { requests: TWICE_AN_HOUR, ..Limits::default() }).await;
    let busy = world.token("busy").await;
    let other = world.token("busy").await;
    for _ in 0..2 {
        world.registry.authenticate(&busy, None).await.unwrap();
    }
    let refused = world.registry.authenticate(&busy, None).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (RefusalKind::RateLimited, "budget_requests"));
    let wait = refused.retry_after().unwrap();
    assert!(wait > Duration::from_secs(1700) && wait <= TWICE_AN_HOUR.interval, "{wait:?}");
    world.registry.authenticate(&other, None).await.unwrap();
}

#[tokio::test]
async fn a_token_over_its_rate_costs_no_look_at_the_database_and_a_guess_takes_no_bucket() {
    let (world, _, _) = world(Limits { requests: TWICE_AN_HOUR, ..Limits::default() }).await;
    let (view, token) =
        world.registry.create_token(&Actor::Server, "busy", "test", None, Scopes::default()).await.unwrap();
    let busy = bytes(token.expose_token());
    for _ in 0..2 {
        world.registry.authenticate(&busy, None).await.unwrap();
    }
    // The database would say that the token is revoked.
    world.registry.revoke_token(&Actor::Server, "busy", view.id.as_str()).await.unwrap();
    assert_eq!(refusal(world.registry.authenticate(&busy, None).await).1, "budget_requests");
    let guess = bytes(ApiToken::generate().unwrap().expose_token());
    for _ in 0..4 {
        assert_eq!(refusal(world.registry.authenticate(&guess, None).await).1, "unknown_token");
    }
}

#[tokio::test]
async fn a_devbox_that_asks_too_often_waits_and_another_one_does_not() {
    let limits = Limits { bundles: TWICE_AN_HOUR, renewals: TWICE_AN_HOUR, ..Limits::default() };
    let (world, busy, _) = world(limits).await;
    let (devbox, peer) = world.joined(&busy, &[]).await;
    let (_, other) = world.joined(&busy, &[]).await;
    let csr = csr(devbox.id.as_str());
    for _ in 0..2 {
        fetch(&world, &peer).await.unwrap();
        world.registry.renew(&peer, &csr).await.unwrap();
    }
    let rows = world.registry.audit(None, 1000).await.unwrap().len();
    let limited = |code| (RefusalKind::RateLimited, code);
    assert_eq!(refusal(fetch(&world, &peer).await), limited("budget_bundles"));
    assert_eq!(refusal(world.registry.renew(&peer, &csr).await), limited("budget_renewals"));
    assert_eq!(world.registry.audit(None, 1000).await.unwrap().len(), rows, "no row for it");
    fetch(&world, &other).await.unwrap();
}

#[tokio::test]
async fn the_deliveries_of_one_devbox_cannot_fill_the_audit() {
    let bundles = Rate { interval: Duration::from_secs(1), burst: 1000 };
    let (world, busy, _) = world(Limits { delivery_rows: 50, bundles, ..Limits::default() }).await;
    let (_, peer) = world.joined(&busy, &[]).await;
    let (_, other) = world.joined(&busy, &[]).await;
    for _ in 0..40 {
        fetch(&world, &peer).await.unwrap();
    }
    fetch(&world, &other).await.unwrap();
    let audit = world.registry.audit(None, 1000).await.unwrap();
    let deliveries: Vec<&AuditEntry> = audit.iter().filter(|row| row.action == "devbox.bundle").collect();
    let of =
        |peer: &DevboxPeer| deliveries.iter().filter(|row| row.actor == peer.devbox_id().as_str()).count();
    assert_eq!((of(&peer), of(&other)), (5 + 1, 1));
    let unlisted =
        |row: &&&AuditEntry| row.reason.as_deref().is_some_and(|reason| reason.contains("not listed"));
    assert_eq!(deliveries.iter().filter(unlisted).count(), 1);
}

#[tokio::test]
async fn revoked_certificates_and_copies_do_not_use_up_the_devboxs_rates() {
    let limits = Limits { bundles: TWICE_AN_HOUR, renewals: TWICE_AN_HOUR, ..Limits::default() };
    let (world, busy, _) = world(limits).await;
    let (devbox, ended) = world.joined(&busy, &[]).await;
    let token = world.registry.new_join_token(&busy, devbox.id.as_str()).await.unwrap();
    let identity = world.enrol(&token).await.unwrap();
    let line = std::sync::Arc::new(());
    let csr = csr(devbox.id.as_str());
    let peer = world.peer(&identity).on(&line);
    fetch(&world, &peer).await.unwrap();
    let copy = world.peer_at(&identity, 9);
    for stranger in [&ended, &copy] {
        for _ in 0..2 {
            assert_eq!(
                world.registry.renew(stranger, &csr).await.unwrap_err().kind(),
                RefusalKind::Forbidden
            );
        }
        let over = (RefusalKind::RateLimited, "budget_renewals");
        assert_eq!(refusal(world.registry.renew(stranger, &csr).await), over);
    }
    for over in [RefusalKind::Forbidden, RefusalKind::Forbidden, RefusalKind::RateLimited] {
        assert_eq!(fetch(&world, &ended).await.unwrap_err().kind(), over);
    }
    fetch(&world, &peer).await.unwrap();
    let renewed = world.peer(&world.registry.renew(&peer, &csr).await.unwrap());
    let renewed = world.peer(&world.registry.renew(&renewed.on(&line), &csr).await.unwrap());
    let refused = world.registry.renew(&renewed.on(&line), &csr).await;
    assert_eq!(
        refusal(refused),
        (RefusalKind::RateLimited, "budget_renewals"),
        "a new certificate is no new budget"
    );
}

/// A bundle request that waits because the account's share of the bytes in flight is taken.
async fn waiting(world: &World, peer: &DevboxPeer) -> tokio::task::JoinHandle<Result<usize, Refusal>> {
    let registry = world.registry.clone();
    let state = world.state.clone();
    let peer = peer.clone();
    let directory = tempfile::tempdir().unwrap();
    let asking = World { registry, state, directory };
    let held = tokio::spawn(async move { fetch(&asking, &peer).await });
    wait::yielding("the request to wait", || world.registry.0.sessions.len() > 0).await;
    held
}

#[tokio::test]
async fn a_request_that_waited_for_its_share_is_admitted_again() {
    let (world, busy, _) = world(Limits::default()).await;
    let (_, peer) = world.joined(&busy, &[]).await;
    let share = world.registry.0.in_flight.take(busy.account(), u64::MAX).await.unwrap();
    let held = waiting(&world, &peer).await;
    world.registry.set_devbox_capability(&Actor::Server, "busy", false).await.unwrap();
    drop(share);
    assert_eq!(refusal(held.await.unwrap()), (RefusalKind::Forbidden, "no_devbox_capability"));
}

#[tokio::test]
async fn a_request_that_waits_for_its_share_ends_when_the_devbox_joins_anew() {
    let (world, busy, _) = world(Limits::default()).await;
    let (devbox, peer) = world.joined(&busy, &[]).await;
    let _share = world.registry.0.in_flight.take(busy.account(), u64::MAX).await.unwrap();
    let held = waiting(&world, &peer).await;
    let token = world.registry.new_join_token(&busy, devbox.id.as_str()).await.unwrap();
    world.enrol(&token).await.unwrap();
    assert_eq!(refusal(held.await.unwrap()), (RefusalKind::Forbidden, "certificate_expired"));
}

#[tokio::test]
async fn a_delivery_ends_when_its_devbox_asks_again() {
    let (world, busy, _) = world(Limits::default()).await;
    let (_, peer) = world.joined(&busy, &[]).await;
    let hpke_public_key = STANDARD.encode(BundleKey::generate().public_key());
    let continuity = Continuity { boot: "b".repeat(BOOT_LEN), after: None, step: "5".repeat(STEP_LEN) };
    let request = BundleRequest { hpke_public_key, known_revision: None, wait_ms: 0, continuity };
    let first = world.registry.bundle(&peer, &request).await.unwrap().unwrap();
    let second = world.registry.bundle(&peer, &request).await.unwrap().unwrap();
    first.ended().await;
    let in_flight = tokio::time::timeout(Duration::ZERO, second.ended()).await;
    assert!(in_flight.is_err(), "the newest goes on");
}

#[test]
fn a_share_is_held_until_its_bundle_is_sealed_though_the_request_has_ended() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (world, busy, _) = world(Limits::default()).await;
        world.secret(&busy, "LARGE", &"v".repeat(100_000)).await;
        let (_, peer) = world.joined(&busy, &[]).await;
        let account = busy.account();
        let id = peer.devbox_id();
        let contents = world.registry.store().bundle_contents(account, id).await.unwrap().unwrap();
        let key = world.registry.account_key(&busy).await.unwrap();
        let share = world.registry.0.in_flight.take(account, u64::MAX).await.unwrap();
        let in_use = || world.registry.0.in_flight.take_now(account, u64::MAX).is_none();
        // The one thread for blocking work is busy, so that the sealing waits for it.
        let (free, busy_until) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || busy_until.recv());
        let public_key = BundleKey::generate().public_key().to_vec();
        let sealing = seal_apart(id.clone(), key, public_key, contents, share);
        assert!(tokio::time::timeout(Duration::ZERO, sealing).await.is_err());
        assert!(in_use(), "the values are still to be sealed");
        free.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        until(|| !in_use()).await;
    });
}

/// Looks again and again until it holds.
async fn until(holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
