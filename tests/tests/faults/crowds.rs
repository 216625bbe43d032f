//! Many at once: commands that crash in a loop, and daemons that lost their server together.

use devbox_secrets_tests::attempt::attempt;
use devbox_secrets_tests::client::Api;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

use crate::support::{Scene, launch};

const CRASHES: usize = 200;
const DEVBOXES: usize = 30;

/// The server's counts, without held polls that ended unchanged: those come by the clock.
async fn counted(world: &World) -> Vec<String> {
    let admin = Api { address: world.server.ready.admin_address(), ..world.api().without_token() };
    let metrics = admin.get("/metrics").await.body_text();
    let counts = |line: &&str| {
        let ours = ["_requests_total{", "_refusals_total{", "_bundles_total", "_enrolments_total"];
        ours.iter().any(|name| line.contains(name)) && !line.contains("status=\"204\"")
    };
    metrics.lines().filter(counts).map(str::to_owned).collect()
}

async fn audited(world: &World) -> usize {
    let rows = world.server.operator_json(&["audit", "--limit", "1000000"]).await;
    rows.as_array().unwrap().len()
}

#[tokio::test]
async fn a_command_that_crash_loops_costs_the_control_plane_nothing() {
    let scene = Scene::start(World::start_with(&["--admin", "127.0.0.1:0"]).await).await;
    let daemon = scene.setup().await.1.start().await;
    scene.serves_what_was(&daemon).await;
    let before = (counted(&scene.world).await, audited(&scene.world).await);
    assert!(before.0.iter().any(|line| line.contains("/v1/devbox/bundle")), "{before:?}");
    for _ in 0..CRASHES {
        let crashed = launch(&daemon).run(&["sh", "-c", "kill -SEGV $$"]).await;
        assert_eq!(crashed.status, 128 + 11, "{}", crashed.stderr);
    }
    assert_eq!((counted(&scene.world).await, audited(&scene.world).await), before);
    let launches = daemon.status().await["launches"]["served"].as_u64().unwrap();
    assert!(launches >= CRASHES as u64, "{launches}");
    scene.leaves_no_trace(&[&daemon]);
}

async fn herd(scene: &Scene) -> Vec<Daemon> {
    let mut daemons = Vec::with_capacity(DEVBOXES);
    for _ in 0..DEVBOXES {
        daemons.push(scene.setup().await.1.spawn());
    }
    for daemon in &mut daemons {
        daemon.ready().await;
    }
    daemons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dozens_of_daemons_come_back_by_themselves_when_their_server_does() {
    let mut scene = Scene::start(World::start().await).await;
    let daemons = herd(&scene).await;
    scene.world.server.program.kill();
    for daemon in &daemons {
        daemon.status_where("the loss to be noticed", |status| !status["last_error"].is_null()).await;
    }
    scene.world.server.start_again().await;
    scene.changes().await;
    for daemon in &daemons {
        daemon.status_where("the daemon to be back", |status| status["last_error"].is_null()).await;
        let new = Some(scene.values.new.value().as_bytes());
        wait::until("the current value", async || {
            (attempt(&launch(daemon), "CHANGED").await.value() == new).then_some(())
        })
        .await;
    }
    scene.leaves_no_trace(&daemons.iter().collect::<Vec<_>>());
}
