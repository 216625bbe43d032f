//! The devbox CA is rotated without a gap: both CAs are trusted until each devbox has its next certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::clock::Clock;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::world::{Devbox, World};
use devbox_secrets_tests::{needs, programs, wait};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{config, launch, launches_get};

/// Long enough for a server that starts again, and short enough for polls that look at the clock in time.
const LEASE: &str = "max_stale = \"20s\"";

/// Past two thirds of a certificate's day.
const RENEWAL_IS_DUE: &str = "+17h";

/// Launches again and again, until it is told to stop.
struct Launches {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Launches {
    fn of(daemon: &Daemon, value: &Canary) -> Self {
        let (launch, value) = (launch(daemon), value.value().as_bytes().to_vec());
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(until_stopped(launch, value, stop.clone(), served.clone()));
        Self { stop, served, task }
    }

    /// No launch was refused, and some were served since the last time.
    async fn go_on(&self) {
        self.served.store(0, Ordering::Relaxed);
        let failed = || assert!(!self.task.is_finished(), "a launch was refused");
        wait::until("launches to go on", async || {
            failed();
            (self.served.load(Ordering::Relaxed) > 1).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every launch was served");
    }
}

async fn until_stopped(launch: Launch, value: Vec<u8>, stop: Arc<AtomicBool>, served: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(attempt(&launch, "KEPT").await, Attempt::Served(value.clone()));
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// The fingerprints that are trusted after `ca …`.
async fn ca(world: &World, arguments: &[&str]) -> Vec<String> {
    let trusted = world.server.operator_json(&[&["ca"], arguments].concat()).await;
    let trusted = trusted.as_array().unwrap().iter();
    trusted.map(|ca| ca["fingerprint"].as_str().unwrap().to_owned()).collect()
}

/// A devbox whose join token pins the CA of this fingerprint: the server issues with that one by now.
async fn devbox_of(world: &World, fingerprint: &str) -> Devbox {
    wait::until("the server to follow the rotation", async || {
        let devbox = world.devbox("after").await;
        devbox.join_token.ends_with(fingerprint).then_some(devbox)
    })
    .await
}

async fn daemon(world: &World, devbox: &Devbox) -> Daemon {
    world.setup(devbox).config(&config(LEASE)).start().await
}

async fn start_the_server_again(world: &mut World) {
    world.server.program.kill();
    world.server.start_again().await;
}

/// Another value reaches these daemons, and no launch gets an older one from then on.
async fn reaches(world: &World, kept: &Canary, daemons: &[&Daemon]) {
    let new = Canary::random();
    world.api().update("CHANGED", new.value()).await;
    for daemon in daemons {
        launches_get(daemon, &[("KEPT", kept), ("CHANGED", &new)]).await;
    }
}

async fn has_renewed(world: &World, devbox: &Devbox) {
    wait::until("the devbox to renew its certificate", async || {
        let rows = world.server.operator_json(&["audit", "--limit", "1000"]).await;
        let renewed = |row: &Value| row["action"] == "devbox.renew" && row["actor"] == *devbox.id;
        rows.as_array().unwrap().iter().any(renewed).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devbox_ca_is_changed_and_retired_without_a_gap_for_devboxes_that_renew() {
    let Some(library) = needs::libfaketime() else { return };
    let _built = programs::shim();
    let (mut world, kept) = (World::start().await, Canary::random());
    world.api().create("KEPT", kept.value()).await;
    world.api().create("CHANGED", Canary::random().value()).await;
    let (first, late, waiting) =
        (world.devbox("first").await, world.devbox("late").await, world.devbox("waiting").await);
    let clock = Clock::new(&library, &world.path().join(&first.id));
    let mut renewing = world.setup(&first).config(&config(LEASE)).spawn_by(|command| clock.of(command));
    renewing.ready().await;
    let late = daemon(&world, &late).await;
    let launches = Launches::of(&renewing, &kept);

    let trusted = ca(&world, &["rotate"]).await;
    let after = devbox_of(&world, &trusted[0]).await;
    assert!(waiting.join_token.ends_with(&trusted[1]), "its token is from before");
    let (waiting, after) = (daemon(&world, &waiting).await, daemon(&world, &after).await);
    // Everybody has to shake hands anew, with what each trusts.
    start_the_server_again(&mut world).await;
    reaches(&world, &kept, &[&renewing, &late, &waiting, &after]).await;
    launches.go_on().await;

    clock.is_off(RENEWAL_IS_DUE);
    reaches(&world, &kept, &[&renewing]).await;
    has_renewed(&world, &first).await;
    clock.is_off("+0s");

    assert_eq!(ca(&world, &["retire", &trusted[1]]).await, [trusted[0].clone()]);
    let refused = wait::until("the devbox that did not renew to be refused", async || {
        match attempt(&launch(&late), "KEPT").await {
            Attempt::Refused(line) => Some(line),
            Attempt::Served(_) => None,
        }
    })
    .await;
    assert!(refused.contains("retired"), "{refused}");
    start_the_server_again(&mut world).await;
    reaches(&world, &kept, &[&renewing, &waiting, &after]).await;
    launches.go_on().await;
    launches.end().await;
}
