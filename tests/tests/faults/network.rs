//! The network between daemon and control plane fails, each way for real: launches go on until the lease ends, not longer,
//! and the daemon comes back by itself.

use std::thread;
use std::time::Instant;

use devbox_secrets_tests::netns::{self, Fault, Wire};
use devbox_secrets_tests::relay::Relay;
use devbox_secrets_tests::require_netns;
use devbox_secrets_tests::world::World;

use crate::support::{Scene, config};

/// A server at one end of the wire.
async fn scene() -> Scene {
    let address = format!("{}:0", netns::SERVER);
    Scene::start(World::start_with(&["--devbox", &address]).await).await
}

async fn is_survived(wire: Wire, fault: Fault) {
    let scene = scene().await;
    let mut daemon = scene.setup().await.1.spawn_by(|command| wire.at_devbox(&command));
    daemon.ready().await;
    scene.serves_what_was(&daemon).await;

    wire.fault(fault);
    scene.outlives_no_lease(&daemon, Instant::now()).await;
    scene.changes().await;
    wire.heal(fault);
    scene.comes_back(&daemon).await;
}

#[test]
fn however_the_network_fails_launches_go_on_until_the_lease_ends_and_the_daemon_comes_back() {
    require_netns!();
    let faults = [Fault::Drop, Fault::Reject, Fault::LinkDown, Fault::NoRoute];
    // All at once, each in a network of its own: most of it is waiting.
    thread::scope(|all| {
        for fault in faults {
            let body = move || netns::apart(async move |wire| is_survived(wire, fault).await);
            thread::Builder::new().name(format!("{fault:?}")).spawn_scoped(all, body).unwrap();
        }
    });
}

/// The connection is dead at the other end, and nothing will ever say so: only the poll's own deadline can.
#[tokio::test]
async fn a_half_open_connection_is_noticed_without_a_reset() {
    let scene = Scene::start(World::start().await).await;
    let relay = Relay::to(scene.world.server.ready.devbox_address()).await;
    let (_, setup) = scene.setup().await;
    let patient = config("poll_wait = \"1s\"\nmax_stale = \"5m\"");
    let daemon = setup.config(&patient).server(&relay.url()).start().await;
    scene.serves_what_was(&daemon).await;

    relay.strand();
    scene.changes().await;
    let troubled =
        daemon.status_where("the deadline of the poll", |status| !status["last_error"].is_null()).await;
    let told = troubled["last_error"]["message"].as_str().unwrap();
    assert!(told.contains("did not answer within"), "{told}");
    scene.comes_back(&daemon).await;
}

/// Neither end can say anything: only the kernel's own questions find out, and long before the held request's deadline.
#[test]
fn a_connection_that_died_is_noticed_long_before_the_polls_deadline() {
    require_netns!();
    netns::apart(async |wire| {
        let scene = scene().await;
        let patient = config("poll_wait = \"60s\"\nmax_stale = \"5m\"");
        let setup = scene.setup().await.1.config(&patient);
        let mut daemon = setup.spawn_by(|command| wire.at_devbox(&command));
        daemon.ready().await;
        scene.serves_what_was(&daemon).await;

        wire.fault(Fault::Drop);
        scene.changes().await;
        daemon.status_where("the keep-alive", |status| !status["last_error"].is_null()).await;
        wire.heal(Fault::Drop);
        scene.comes_back(&daemon).await;
    });
}
