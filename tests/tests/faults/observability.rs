//! Metrics and audit of a secret, from its first launch to its revocation.

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::client;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use nix::unistd::geteuid;
use serde_json::Value;

async fn metrics(daemon: &Daemon) -> String {
    let answer = client::get_unix(&daemon.admin_socket, "/metrics").await.unwrap();
    assert_eq!(answer.status, 200);
    answer.body_text()
}

/// Waits until the metrics have this line: a count moves after the answer that it counts.
async fn counted(daemon: &Daemon, line: &str) -> String {
    let wanted = format!("\ndevbox_secretsd_{line}\n");
    wait::until(line, async || Some(metrics(daemon).await).filter(|text| text.contains(&wanted))).await
}

/// The audit's events of `kind`, once there are `count`: the log is written behind the daemon's work.
async fn events(daemon: &Daemon, kind: &str, count: usize) -> Vec<Value> {
    wait::until(kind, async || {
        let log = daemon.program.log();
        // The last line may not be whole yet.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let events = lines.filter(|line| line["target"] == "audit" && line["event"] == kind);
        Some(events.collect::<Vec<_>>()).filter(|events| events.len() >= count)
    })
    .await
}

async fn launch(daemon: &Daemon, options: &[&str]) -> i32 {
    Launch::new(&daemon.socket).options(options).run(&["true"]).await.status
}

#[tokio::test]
async fn a_secrets_whole_life_is_counted_and_told_by_name_and_never_by_value() {
    let (world, canary) = (World::start().await, Canary::random());
    world.api().create("CANARY", canary.value()).await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).start().await;

    assert_eq!(launch(&daemon, &[]).await, 0);
    assert_eq!(launch(&daemon, &["--rename", "NEW=CANARY"]).await, 0);
    counted(&daemon, "launches_total 2").await;
    world.api().update("CANARY", canary.value()).await;
    counted(&daemon, "revocation_latency_seconds_count 1").await;
    world.api().delete("CANARY").await;
    let emptied = counted(&daemon, "revocation_latency_seconds_count 2").await;
    assert!(emptied.contains("\ndevbox_secretsd_names 0\n"), "{emptied}");
    assert_eq!(launch(&daemon, &["--require", "CANARY"]).await, 125);
    counted(&daemon, "launch_refusals_total{reason=\"missing\"} 1").await;
    world.api().post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await.expect(200);
    counted(&daemon, "state{state=\"lost\"} 1").await;
    assert_eq!(launch(&daemon, &[]).await, 125);
    let last = counted(&daemon, "launch_refusals_total{reason=\"revoked\"} 1").await;

    let launches = events(&daemon, "launch", 2).await;
    let names: Vec<&str> = launches.iter().map(|event| event["names"].as_str().unwrap()).collect();
    assert_eq!(names, ["*", "NEW=CANARY"]);
    assert!(launches.iter().all(|event| event["uid"] == geteuid().as_raw()));
    let taken = events(&daemon, "bundle", 3).await;
    let taken: Vec<&str> = taken.iter().map(|event| event["names"].as_str().unwrap()).collect();
    assert_eq!(taken, ["CANARY", "CANARY", ""]);
    assert_eq!(events(&daemon, "join", 1).await[0]["devbox"], devbox.id.as_str());
    assert_eq!(events(&daemon, "wipe", 1).await[0]["code"], "revoked");
    assert_eq!(events(&daemon, "refusal", 2).await.len(), 2);

    assert_eq!(canary.found_in(last.as_bytes()), [""; 0]);
    assert_eq!(canary.found_in(daemon.program.log().as_bytes()), [""; 0]);
}
