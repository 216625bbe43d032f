//! Changes while a daemon runs: of values, of the control plane, of the devbox's right to be there.

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

async fn launch_gets(daemon: &Daemon, what: &str, wanted: &[(&str, &str)]) {
    let wanted: Environment =
        wanted.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    wait::until(what, async || (Launch::new(&daemon.socket).environment().await == wanted).then_some(()))
        .await;
}

#[tokio::test]
async fn creation_update_and_deletion_reach_the_running_daemon() {
    let world = World::start().await;
    let api = world.api();
    api.create("FIRST", "1").await;
    let daemon = world.daemon().await;
    launch_gets(&daemon, "the first bundle", &[("FIRST", "1")]).await;
    api.create("SECOND", "2").await;
    launch_gets(&daemon, "the creation", &[("FIRST", "1"), ("SECOND", "2")]).await;
    api.update("FIRST", "one").await;
    launch_gets(&daemon, "the update", &[("FIRST", "one"), ("SECOND", "2")]).await;
    api.delete("FIRST").await;
    launch_gets(&daemon, "the deletion", &[("SECOND", "2")]).await;
}

#[tokio::test]
async fn an_operators_secret_reaches_the_daemon_through_the_running_server() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let account = world.server.ready.account.clone();
    let set = ["secret", "set", "--account", &account, "BY_OPERATOR"];
    world.server.operator(&set, b"typed").await.success();
    launch_gets(&daemon, "the operator's secret", &[("BY_OPERATOR", "typed")]).await;
}

#[tokio::test]
async fn launches_go_on_from_memory_while_the_server_is_dead() {
    let mut world = World::with_secret("API_KEY", "before").await;
    let daemon = world.daemon().await;
    let synced = daemon.status().await.to_string();
    world.server.program.kill();
    launch_gets(&daemon, "a launch from memory", &[("API_KEY", "before")]).await;
    let troubled = daemon.status_where("status to say so", |status| says_trouble(&status.to_string())).await;
    assert!(!says_trouble(&synced), "{synced}\n{troubled}");

    world.server.start_again().await;
    world.api().update("API_KEY", "after").await;
    launch_gets(&daemon, "the update after the restart", &[("API_KEY", "after")]).await;
}

/// The last error of the control plane is in the status.
fn says_trouble(status: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).unwrap();
    !status["last_error"].is_null()
}

#[tokio::test]
async fn a_shut_down_devbox_loses_its_secrets() {
    let world = World::with_secret("API_KEY", "s3cret").await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).start().await;
    world.api().post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await.expect(200);
    let refused = wait::until("the refusal", async || {
        Some(Launch::new(&daemon.socket).options(&["--wait", "0"]).run(&["true"]).await)
            .filter(|output| output.status != 0)
    })
    .await;
    assert_eq!(refused.status, 125);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
}

#[tokio::test]
async fn status_tells_names_and_versions_and_never_values() {
    let world = World::start().await;
    let canary = Canary::random();
    world.api().create("CANARY", canary.value()).await;
    world.api().update("CANARY", canary.value()).await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).start().await;
    Launch::new(&daemon.socket).run(&["true"]).await.success();

    let json = daemon.status_command(&["--json"]).await.success();
    let table = daemon.status_command(&[]).await.success();
    for output in [&json, &table] {
        assert_eq!(canary.found_in(&output.stdout), [""; 0]);
        for told in [devbox.id.as_str(), "CANARY", world.server.ready.devbox.as_str()] {
            assert!(output.text().contains(told), "{told} in {}", output.text());
        }
    }
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["revision"].as_u64().is_some_and(|revision| revision > 0), "{json}");
    let text = json.to_string();
    assert!(text.contains("memfd_secret") || text.contains("mlock"), "the memory backing: {text}");
    assert!(text.contains("\"version\":2"), "the secret's version: {text}");
}
