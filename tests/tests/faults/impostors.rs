//! Something is at the server's address, and it is not a server that works: stopped, slow, damaged on its way, another one,
//! or no TLS at all. Launches go on until the lease ends, `status` says what fails, and the daemon comes back by itself.

use std::net::SocketAddr;
use std::time::Instant;

use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::needs;
use devbox_secrets_tests::relay::{Fault, Relay};
use devbox_secrets_tests::world::World;
use nix::sys::signal::Signal;

use crate::support::Scene;

/// A daemon that reaches its server through a relay.
struct Relayed {
    relay: Relay,
    daemon: Daemon,
}

impl Relayed {
    async fn start(scene: &Scene) -> Self {
        let relay = Relay::to(scene.world.server.ready.devbox_address()).await;
        let (_, setup) = scene.setup().await;
        let daemon = setup.server(&relay.url()).start().await;
        scene.serves_what_was(&daemon).await;
        Self { relay, daemon }
    }

    /// The lease runs out after `cut`, and `status` names what fails: any of `named`.
    async fn is_lost(&self, scene: &Scene, cut: Instant, named: &[&str]) {
        scene.outlives_no_lease(&self.daemon, cut).await;
        let what = format!("status to say one of {named:?}");
        let tells = |status: &serde_json::Value| {
            let message = status["last_error"]["message"].as_str().unwrap_or_default();
            named.iter().any(|word| message.contains(word))
        };
        self.daemon.status_where(&what, tells).await;
    }

    /// Connections begin anew: a new one is given up sooner than a poll that may be held.
    async fn outlasts_fault(&self, scene: &Scene, fault: Fault, named: &[&str]) {
        self.relay.fault(fault);
        self.relay.lead_to(scene.world.server.ready.devbox_address());
        self.is_lost(scene, Instant::now(), named).await;
    }

    async fn outlasts_stranger(&self, scene: &Scene, stranger: SocketAddr, named: &str) {
        self.relay.lead_to(stranger);
        self.is_lost(scene, Instant::now(), &[named]).await;
    }
}

#[tokio::test]
async fn a_silent_a_slow_and_a_garbled_server_are_outlived_until_the_lease_ends() {
    let scene = Scene::start(World::start().await).await;
    let silent = Relayed::start(&scene).await;
    let slow = Relayed::start(&scene).await;
    let garbled = Relayed::start(&scene).await;
    tokio::join!(
        silent.outlasts_fault(&scene, Fault::Silent, &["did not answer within"]),
        slow.outlasts_fault(&scene, Fault::Trickling, &["did not answer within"]),
        garbled.outlasts_fault(&scene, Fault::Damaged, &["TLS with", "broke"]),
    );
    scene.changes().await;
    for relayed in [&silent, &slow, &garbled] {
        relayed.relay.fault(Fault::None);
        scene.comes_back(&relayed.daemon).await;
    }
}

#[tokio::test]
async fn a_stranger_at_the_servers_address_gets_nothing_and_ends_nothing_before_the_lease_does() {
    let scene = Scene::start(World::start().await).await;
    let other = World::start().await;
    let of_another_ca = Relayed::start(&scene).await;
    let without_tls = Relayed::start(&scene).await;
    let ready = &scene.world.server.ready;
    tokio::join!(
        of_another_ca.outlasts_stranger(
            &scene,
            other.server.ready.devbox_address(),
            "not from the devbox CA"
        ),
        without_tls.outlasts_stranger(&scene, ready.api_address(), "does that speak TLS"),
    );
    scene.changes().await;
    for relayed in [&of_another_ca, &without_tls] {
        relayed.relay.lead_to(ready.devbox_address());
        scene.comes_back(&relayed.daemon).await;
    }
}

/// Its kernel goes on taking connections.
#[tokio::test]
async fn a_stopped_server_is_outlived_until_the_lease_ends() {
    let mut scene = Scene::start(World::start().await).await;
    let (_, setup) = scene.setup().await;
    let daemon = setup.start().await;
    scene.serves_what_was(&daemon).await;

    scene.world.server.program.signal(Signal::SIGSTOP);
    scene.outlives_no_lease(&daemon, Instant::now()).await;
    scene.world.server.program.signal(Signal::SIGCONT);
    scene.changes().await;
    scene.comes_back(&daemon).await;
}

/// Its clock was so wrong at its start that its certificate is over.
#[tokio::test]
async fn a_server_with_an_expired_certificate_is_not_believed() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut scene = Scene::start(World::start().await).await;
    let (_, setup) = scene.setup().await;
    let daemon = setup.start().await;
    scene.serves_what_was(&daemon).await;

    scene.world.server.program.kill();
    let cut = Instant::now();
    scene.world.server.start_again_later(&libfaketime, "-8d").await;
    scene.outlives_no_lease(&daemon, cut).await;
    let is_named = |status: &serde_json::Value| {
        status["last_error"]["message"].as_str().is_some_and(|message| message.contains("has expired"))
    };
    daemon.status_where("status to name the certificate", is_named).await;
    scene.world.server.program.kill();
    scene.world.server.start_again().await;
    scene.changes().await;
    scene.comes_back(&daemon).await;
}
