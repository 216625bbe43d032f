//! A revocation reaches the memory and the launches of every connected devbox within moments.

use std::time::{Duration, Instant};

use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::{Devbox, World};
use serde_json::json;

use crate::support::{Scene, config, goes_on_without, is_empty, launch, launches_get};

/// From the revocation to the wipe, on a loaded machine, with programs that are not optimised. The promise is 1 s, which the
/// bench measures; a poll that is not woken would be held for [`HELD`].
const SOON: Duration = Duration::from_secs(20);
const HELD: &str = "poll_wait = \"60s\"\nmax_stale = \"10m\"";

/// A value, in bytes, that needs more pages than all others and the launches that are prepared for.
const LARGE: usize = 100 * 1024;

async fn start() -> (Scene, Devbox, Daemon) {
    let scene = Scene::start(World::start().await).await;
    let (devbox, setup) = scene.setup().await;
    let daemon = setup.config(&config(HELD)).start().await;
    scene.serves_what_was(&daemon).await;
    (scene, devbox, daemon)
}

/// Since `taken` this devbox may have nothing: no pages are left, and launches are told why.
async fn loses_all(daemon: &Daemon, taken: Instant, why: &str) {
    let status = daemon.status_where("the wipe", is_empty).await;
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    assert_eq!(status["state"], "lost", "{status}");
    let told = attempt(&launch(daemon), "KEPT").await.refusal();
    assert!(told.contains(why), "{told}");
    goes_on_without(daemon).await;
}

#[tokio::test]
async fn a_devbox_that_is_shut_down_is_empty_at_once() {
    let (scene, devbox, daemon) = start().await;
    let taken = Instant::now();
    scene.world.api().post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await.expect(200);
    loses_all(&daemon, taken, "shut down").await;
    scene.leaves_no_trace(&[&daemon]);
}

#[tokio::test]
async fn an_account_whose_capability_is_taken_has_nothing_left_in_its_devboxes() {
    let (scene, _, daemon) = start().await;
    let account = scene.world.server.ready.account.clone();
    let taken = Instant::now();
    scene.world.server.operator(&["account", "set-capability", &account, "off"], b"").await.success();
    loses_all(&daemon, taken, "capability").await;
    scene.leaves_no_trace(&[&daemon]);
}

#[tokio::test]
async fn a_deleted_secret_is_gone_with_its_pages_and_the_rest_stays() {
    let (scene, _, daemon) = start().await;
    let api = scene.world.api();
    api.create("LARGE", &"x".repeat(LARGE)).await;
    let locked = |status: &serde_json::Value| status["memory"]["bytes_locked"].as_u64().unwrap();
    daemon.status_where("the large secret", |status| locked(status) >= LARGE as u64).await;
    let taken = Instant::now();
    api.delete("LARGE").await;
    daemon.status_where("its pages to be gone", |status| locked(status) < LARGE as u64).await;
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    let told = attempt(&launch(&daemon).options(&["--require", "LARGE"]), "KEPT").await.refusal();
    assert!(told.contains("LARGE"), "{told}");
    scene.serves_what_was(&daemon).await;
    scene.leaves_no_trace(&[&daemon]);
}

#[tokio::test]
async fn a_secret_under_a_binding_leaves_the_devbox_when_it_is_deleted() {
    let scene = Scene::start(World::start().await).await;
    let bound = json!({ "name": "bound", "secrets": { "MINE": "DELETED", "KEPT": "KEPT" } });
    let devbox = scene.world.devbox_with(&bound).await;
    let daemon = scene.world.setup(&devbox).config(&config(HELD)).start().await;
    let values = &scene.values;
    launches_get(&daemon, &[("MINE", &values.old), ("KEPT", &values.kept)]).await;
    let taken = Instant::now();
    scene.world.api().delete("DELETED").await;
    wait::until("the binding to be empty", async || {
        let options = ["--require", "MINE"];
        let attempted = attempt(&launch(&daemon).options(&options), "KEPT").await;
        matches!(attempted, Attempt::Refused(_)).then_some(())
    })
    .await;
    assert!(taken.elapsed() < SOON, "{:?}", taken.elapsed());
    launches_get(&daemon, &[("KEPT", &values.kept)]).await;
    scene.leaves_no_trace(&[&daemon]);
}
