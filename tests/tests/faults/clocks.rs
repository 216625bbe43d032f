//! Clocks that are wrong, that jump, and that went on while the daemon did not.
//!
//! A suspended machine is a stopped daemon here: the clock that counts suspended time goes on for both alike. A time
//! namespace would be no closer: its offset is fixed before its first process starts (time_namespaces(7)).

use std::time::Instant;

use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::client::Api;
use devbox_secrets_tests::clock::Clock;
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::relay::{Fault, Relay};
use devbox_secrets_tests::world::World;
use devbox_secrets_tests::{needs, wait};
use nix::sys::signal::Signal;
use tokio::time::sleep_until;

use crate::support::{LEASE, Scene, launch, launches_until_refused};

/// A daemon of this world whose clock can be moved. The clock's file is in the folder of its configuration, which a
/// confined daemon may read.
async fn with_clock(scene: &Scene) -> Option<(Clock, Setup)> {
    let library = needs::libfaketime()?;
    let (devbox, setup) = scene.setup().await;
    Some((Clock::new(&library, &scene.world.path().join(&devbox.id)), setup))
}

#[tokio::test]
async fn a_devbox_whose_clock_is_minutes_off_is_served() {
    let scene = Scene::start(World::start().await).await;
    for offset in ["+4m", "-4m"] {
        let Some((clock, setup)) = with_clock(&scene).await else { return };
        clock.is_off(offset);
        let mut daemon = setup.spawn_by(|command| clock.of(command));
        daemon.ready().await;
        scene.serves_what_was(&daemon).await;
        scene.leaves_no_trace(&[&daemon]);
    }
}

#[tokio::test]
async fn a_server_whose_clock_is_minutes_off_serves() {
    let Some(library) = needs::libfaketime() else { return };
    let mut scene = Scene::start(World::start().await).await;
    for offset in ["+4m", "-4m"] {
        scene.world.server.program.kill();
        scene.world.server.start_again_later(&library, offset).await;
        let daemon = scene.setup().await.1.start().await;
        scene.serves_what_was(&daemon).await;
    }
}

/// Never ready, and says why.
async fn serves_nothing(daemon: &Daemon, why: &str) {
    let told = |status: &serde_json::Value| {
        [&status["last_error"]["message"], &status["reason"]]
            .iter()
            .any(|text| text.to_string().contains(why))
    };
    let status = daemon.status_where(&format!("status to say: {why}"), told).await;
    assert_ne!(status["state"], "ready", "{status}");
    let refused = attempt(&launch(daemon), "KEPT").await.refusal();
    assert!(refused.contains(why), "{refused}");
}

#[tokio::test]
async fn a_devbox_whose_clock_is_hours_behind_is_told_to_look_at_its_clock() {
    let scene = Scene::start(World::start().await).await;
    let Some((clock, setup)) = with_clock(&scene).await else { return };
    clock.is_off("-3h");
    let daemon = setup.spawn_by(|command| clock.of(command));
    wait::until("the admin socket", async || daemon.admin_socket.exists().then_some(())).await;
    serves_nothing(&daemon, "check the devbox's clock").await;
    clock.is_off("+0s");
    scene.serves_what_was(&daemon).await;
}

/// For a devbox that is a day ahead, every certificate that it gets is over.
#[tokio::test]
async fn a_clock_that_passes_the_certificates_end_ends_service_whatever_the_lease() {
    let scene = Scene::start(World::start().await).await;
    let Some((clock, setup)) = with_clock(&scene).await else { return };
    let mut daemon = setup.spawn_by(|command| clock.of(command));
    daemon.ready().await;
    scene.serves_what_was(&daemon).await;
    clock.is_off("+25h");
    serves_nothing(&daemon, "certificate has expired").await;
    scene.leaves_no_trace(&[&daemon]);
}

#[tokio::test]
async fn a_calendar_clock_that_jumps_makes_no_lease_longer_or_shorter() {
    let mut scene = Scene::start(World::start().await).await;
    let Some((ahead, ahead_setup)) = with_clock(&scene).await else { return };
    let Some((behind, behind_setup)) = with_clock(&scene).await else { return };
    let mut daemons = [
        ahead_setup.spawn_by(|command| ahead.of(command)),
        behind_setup.spawn_by(|command| behind.of(command)),
    ];
    for daemon in &mut daemons {
        daemon.ready().await;
        scene.serves_what_was(daemon).await;
    }
    scene.world.server.program.kill();
    let cut = Instant::now();
    ahead.is_off("+10h");
    behind.is_off("-10h");
    let kept = &scene.values.kept;
    let told = tokio::join!(
        launches_until_refused(&daemons[0], kept, cut),
        launches_until_refused(&daemons[1], kept, cut)
    );
    assert!(told.0.contains("max_stale") && told.1.contains("max_stale"), "{told:?}");
}

/// Waits until the server has the daemon's request and lets it wait for a change.
async fn poll_is_held(world: &World) {
    let admin = Api { address: world.server.ready.admin_address(), ..world.api().without_token() };
    let is_held = |metrics: &str| metrics.lines().any(|line| line == "devbox_secrets_server_held_requests 1");
    wait::until("the poll to be held", async || {
        is_held(&admin.get("/metrics").await.body_text()).then_some(())
    })
    .await;
}

/// The answer to the held poll came while nobody was there to read it: it says how things were then, not now.
#[tokio::test]
async fn after_a_suspension_past_its_lease_a_daemon_serves_nothing_until_it_has_asked() {
    let scene = Scene::start(World::start_with(&["--admin", "127.0.0.1:0"]).await).await;
    let relay = Relay::to(scene.world.server.ready.devbox_address()).await;
    let (_, setup) = scene.setup().await;
    let mut daemon = setup.server(&relay.url()).start().await;
    scene.serves_what_was(&daemon).await;

    poll_is_held(&scene.world).await;
    daemon.program.signal(Signal::SIGSTOP);
    // The poll is held for half a lease, and its answer is good for a whole one.
    sleep_until((Instant::now() + 2 * LEASE).into()).await;
    relay.fault(Fault::Silent);
    scene.changes().await;
    daemon.program.signal(Signal::SIGCONT);
    let first = attempt(&launch(&daemon), "KEPT").await;
    assert!(matches!(first, Attempt::Refused(_)), "served past the lease");
    daemon.status_where("the daemon to go on", |status| status["state"] == "stale").await;
    let second = attempt(&launch(&daemon), "KEPT").await;
    assert!(matches!(second, Attempt::Refused(_)), "an old answer is no new lease");

    relay.fault(Fault::None);
    scene.comes_back(&daemon).await;
}
