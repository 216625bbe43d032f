//! The main job: a secret travels from the Secrets API into one process.

use std::collections::BTreeMap;

use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::world::World;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::task::JoinSet;

/// Kept for the kernel's limit: the largest of all values, and one that is merely large.
const LARGE: usize = 100 * 1024;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn one_secret_reaches_the_process_and_nothing_else_does() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let launch = Launch::new(&daemon.socket);
    assert_eq!(launch.environment().await, environment(&[("API_KEY", "s3cret")]));
}

#[tokio::test]
async fn five_thousand_secrets_reach_the_process() {
    let world = World::start().await;
    let expected = world.fill(5_000).await;
    let daemon = world.daemon().await;
    let got = Launch::new(&daemon.socket).environment().await;
    assert_eq!(got.len(), 5_000);
    assert!(got == expected, "every value is its own");
}

#[tokio::test]
async fn values_arrive_byte_for_byte() {
    let world = World::start().await;
    let long_name = "N".repeat(255);
    let fullest = "f".repeat(devbox_secrets_proto::name::max_value_len("FULLEST"));
    let large = "é€".repeat(LARGE / 5);
    let odd = [
        ("EMPTY", ""),
        ("EQUALS", "=a=b="),
        ("FULLEST", fullest.as_str()),
        ("LARGE", large.as_str()),
        ("LINES", "-----BEGIN KEY-----\nabc\r\n\n-----END KEY-----\n"),
        (long_name.as_str(), "the longest name"),
        ("QUOTES", r#"'"`$HOME\n%s${x}"#),
        ("SPACES", "  \t "),
        ("UTF8", "zażółć €😀\u{feff}\u{1}\u{7f}"),
        ("_", "an underscore"),
    ];
    for (name, value) in odd {
        world.api().create(name, value).await;
    }
    let daemon = world.daemon().await;
    assert_eq!(Launch::new(&daemon.socket).environment().await, environment(&odd));
}

#[tokio::test]
async fn a_binding_map_decides_names_and_leaves_the_rest_out() {
    let world = World::start().await;
    for name in ["DATABASE_PASSWORD", "OTHER"] {
        world.api().create(name, &format!("value of {name}")).await;
    }
    let bindings = json!({ "DB_PASS": "DATABASE_PASSWORD", "PGPASSWORD": "DATABASE_PASSWORD" });
    let devbox = world.devbox_with(&json!({ "name": "box", "secrets": bindings })).await;
    let daemon = world.setup(&devbox).start().await;
    let value = "value of DATABASE_PASSWORD";
    let expected = environment(&[("DB_PASS", value), ("PGPASSWORD", value)]);
    assert_eq!(Launch::new(&daemon.socket).environment().await, expected);
}

#[tokio::test]
async fn two_devboxes_get_each_its_own() {
    let world = World::start().await;
    let mut daemons = Vec::new();
    for name in ["ALPHA", "BETA"] {
        world.api().create(name, name).await;
        let devbox = world.devbox_with(&json!({ "name": name, "secrets": { "MINE": name } })).await;
        daemons.push(world.setup(&devbox).start().await);
    }
    for (daemon, name) in daemons.iter().zip(["ALPHA", "BETA"]) {
        assert_eq!(Launch::new(&daemon.socket).environment().await, environment(&[("MINE", name)]));
    }
}

#[tokio::test]
async fn a_selection_is_honoured() {
    let world = World::start().await;
    for name in ["A", "B", "C"] {
        world.api().create(name, &name.to_lowercase()).await;
    }
    let daemon = world.daemon().await;
    let got = async |options: &[&str]| Launch::new(&daemon.socket).options(options).environment().await;
    assert_eq!(got(&["--only", "A,C"]).await, environment(&[("A", "a"), ("C", "c")]));
    assert_eq!(got(&["--except", "A"]).await, environment(&[("B", "b"), ("C", "c")]));
    assert_eq!(got(&["--only=A,B", "--rename", "NEW=B"]).await, environment(&[("A", "a"), ("NEW", "b")]));
    assert_eq!(got(&["--require", "C"]).await.len(), 3);

    let absent =
        [["--only", "ABSENT"], ["--except", "ABSENT"], ["--require", "ABSENT"], ["--rename", "NEW=ABSENT"]];
    for options in absent {
        let refused = Launch::new(&daemon.socket).options(&options).run(&["true"]).await;
        assert_eq!((refused.status, refused.stdout.as_slice()), (125, &b""[..]));
        assert!(
            refused.stderr.contains("ABSENT") && refused.stderr.lines().count() == 1,
            "{}",
            refused.stderr
        );
    }
    let listed = Launch::new(&daemon.socket).options(&["--list"]).run_alone().await.success();
    assert_eq!(listed.text(), "A\nB\nC\n");
}

#[tokio::test]
async fn two_hundred_launches_at_once_all_get_their_secrets() {
    let world = World::start().await;
    let expected = world.fill(10).await;
    let daemon = world.daemon().await;
    let mut launches = JoinSet::new();
    for _ in 0..200 {
        let launch = Launch::new(&daemon.socket);
        launches.spawn(async move { launch.environment().await });
    }
    let mut outcomes = BTreeMap::new();
    for got in launches.join_all().await {
        *outcomes.entry(got == expected).or_insert(0) += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([(true, 200)]));
}

#[tokio::test]
async fn a_stopped_daemon_leaves_no_socket_and_launched_processes_run_on() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_world, mut daemon) = World::serving("API_KEY", "s3cret").await;
        let mut running = Launch::new(&daemon.socket).command(&["sh", "-c", "read line; echo $line$API_KEY"]);
        running.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut running = tokio::process::Command::from(running).spawn().unwrap();
        let launched = running.id().unwrap();
        devbox_secrets_tests::wait::until("the launch", async || {
            let name = std::fs::read_to_string(format!("/proc/{launched}/comm")).unwrap();
            (name == "sh\n").then_some(())
        })
        .await;

        daemon.program.signal(signal);
        assert!(daemon.program.end().await.success(), "{signal}");
        assert!(!daemon.socket.exists() && !daemon.admin_socket.exists(), "{signal}");
        let mut stdin = running.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, b"still \n").await.unwrap();
        drop(stdin);
        let output = running.wait_with_output().await.unwrap();
        assert_eq!(output.stdout, b"stills3cret\n");

        let refused = Launch::new(&daemon.socket).run(&["true"]).await;
        assert_eq!(refused.status, 125);
        assert!(refused.stderr.contains("launch.sock"), "{}", refused.stderr);
    }
}
