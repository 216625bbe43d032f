//! A random secret is where it is meant to be, and nowhere else on the machine.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::client::Protocol;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::memory::{Finding, in_command_lines, in_environment, in_file, in_files, in_memory};
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use hyper::Method;
use serde_json::json;
use tokio::process::{Child, Command};

/// A shell, and the process that it launched through the shim. Both live until this is dropped.
struct Launched {
    shell: Child,
    child: u32,
}

impl Launched {
    /// `cat` waits for input that never comes, with its environment in place.
    async fn through(daemon: &Daemon) -> Self {
        let launch = Launch::new(&daemon.socket).command(&["cat"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\"; exit $?", "sh"]).arg(launch.get_program()).args(launch.get_args());
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let shell_pid = shell.id().unwrap();
        let child = wait::until("the launched process", async || executed_child(shell_pid, "cat")).await;
        Self { shell, child }
    }
}

fn executed_child(parent: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_ascii_whitespace().next()?.parse().ok()?;
    let executed = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (executed.trim_end() == name).then_some(child)
}

/// A control plane and a daemon that both know the canary, and a process that was launched with it.
async fn launched(canary: &Canary) -> (World, Daemon, Launched) {
    let world = World::start().await;
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let api = world.api().over(protocol);
        api.create("CANARY", canary.value()).await;
        if protocol == Protocol::Http2 {
            api.delete("CANARY").await;
        }
    }
    let daemon = world.daemon().await;
    let launched = Launched::through(&daemon).await;
    (world, daemon, launched)
}

/// Waits for the daemon's words about its secrets and a launch, and for one that only its most talkative log has.
async fn has_said_all(daemon: &Daemon) {
    let mut stranger = UnixStream::connect(&daemon.admin_socket).unwrap();
    stranger.write_all(b"no HTTP\r\n\r\n").unwrap();
    wait::until("the daemon's log", async || {
        let log = daemon.program.log();
        let said = ["\"event\":\"bundle\"", "\"event\":\"launch\"", "DEBUG"];
        said.iter().all(|words| log.contains(words)).then_some(())
    })
    .await;
}

fn nothing() -> Vec<Finding> {
    Vec::new()
}

#[tokio::test]
async fn a_launched_process_has_the_secret_and_no_file_log_or_command_line_does() {
    let canary = Canary::random();
    let (world, daemon, launched) = launched(&canary).await;
    assert!(!in_environment(launched.child, &canary).is_empty(), "the search finds what is there");
    has_said_all(&daemon).await;

    assert_eq!(in_files(world.path(), &canary), nothing());
    assert_eq!(in_command_lines(&canary), nothing());
    // The server says no more than this, whatever it is asked for: its libraries' frames could hold values.
    assert!(world.server.program.log().contains("INFO"), "there is a log to look into");
}

#[tokio::test]
async fn neither_update_nor_deletion_nor_a_refusal_leaves_a_value_on_disk() {
    let canary = Canary::random();
    let (mut world, mut daemon, _launched) = launched(&canary).await;
    let api = world.api();
    api.update("CANARY", &canary.value().to_uppercase()).await;
    api.update("CANARY", canary.value()).await;
    api.post("/v1/secrets", &json!({ "name": "bad name", "value": canary.value() })).await.refusal(400);
    api.post("/v1/secrets", &json!({ "name": "CANARY", "value": canary.value() })).await.refusal(400);
    api.delete("CANARY").await;
    daemon.program.stop().await;
    world.server.program.stop().await;
    assert_eq!(in_files(world.path(), &canary), nothing());
}

#[tokio::test]
async fn no_readable_byte_of_the_daemons_memory_holds_the_secret() {
    require_root!();
    let canary = Canary::random();
    let (_world, daemon, launched) = launched(&canary).await;
    let child = in_memory(launched.child, &canary);
    assert!(!child.found.is_empty(), "the search finds what is there, in {} bytes", child.bytes);

    let scan = in_memory(daemon.program.pid(), &canary);
    assert!(scan.bytes > 1_000_000, "only {} bytes of the daemon could be read", scan.bytes);
    assert_eq!(scan.found, nothing());
}

#[tokio::test]
async fn the_shell_that_ran_the_shim_never_has_the_secret() {
    require_root!();
    let canary = Canary::random();
    let (_world, _daemon, launched) = launched(&canary).await;
    let shell = launched.shell.id().unwrap();
    assert_eq!(in_memory(shell, &canary).found, nothing());
    assert_eq!(in_environment(shell, &canary), nothing());
}

#[tokio::test]
async fn the_daemons_memory_stays_clean_after_changes_refusals_and_an_inline_answer() {
    require_root!();
    let canary = Canary::random();
    let (world, daemon, _launched) = launched(&canary).await;
    for version in 2..5 {
        world.api().update("CANARY", canary.value()).await;
        daemon
            .status_where("the new version", |status| {
                status.to_string().contains(&format!("\"version\":{version}"))
            })
            .await;
    }
    Launch::new(&daemon.socket).options(&["--rename", "OTHER=CANARY"]).run(&["true"]).await.success();
    Launch::new(&daemon.socket).options(&["--list"]).run_alone().await.success();
    assert_eq!(
        Launch::new(&daemon.socket).options(&["--require", "ABSENT"]).run(&["true"]).await.status,
        125
    );
    assert_eq!(in_memory(daemon.program.pid(), &canary).found, nothing());
}

/// The client keeps its connection: what the server read from it must be gone all the same.
#[tokio::test]
async fn the_servers_memory_holds_no_secret_after_the_request() {
    require_root!();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start().await;
        let canary = Canary::random();
        let api = world.api().over(protocol);
        let mut connection = api.connect().await;
        let body = json!({ "name": "CANARY", "value": canary.value() });
        let answer = connection.send(api.request(Method::POST, "/v1/secrets", Some(&body))).await.unwrap();
        answer.expect(200);
        server_forgets(&world, &canary).await;

        let daemon = world.daemon().await;
        server_forgets(&world, &canary).await;
        drop((daemon, connection));
    }
}

/// A refused value was as secret as a stored one.
#[tokio::test]
async fn the_servers_memory_holds_no_refused_secret_either() {
    require_root!();
    let world = World::start().await;
    let canary = Canary::random();
    let api = world.api();
    let bodies = [
        json!({ "name": "bad name", "value": canary.value() }),
        json!({ "name": "A", "value": canary.value(), "more": canary.value() }),
        json!({ "name": "A", "value": [canary.value()] }),
        json!([canary.value()]),
    ];
    let mut connections = Vec::new();
    for body in bodies {
        let mut connection = api.connect().await;
        let request = api.request(Method::POST, "/v1/secrets", Some(&body));
        connection.send(request).await.unwrap().refusal(400);
        connections.push(connection);
    }
    let mut connection = api.connect().await;
    let body = json!({ "name": "A", "value": canary.value() });
    let stranger = api.without_token().request(Method::POST, "/v1/secrets", Some(&body));
    connection.send(stranger).await.unwrap().refusal(401);
    connections.push(connection);
    server_forgets(&world, &canary).await;
    drop(connections);
}

/// The answer is on its way before the connection's buffers are wiped: so within the deadline, not at once.
async fn server_forgets(world: &World, canary: &Canary) {
    let mut found = nothing();
    wait::until("the server to forget the value", async || {
        found = in_memory(world.server.program.pid(), canary).found;
        found.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn tokens_are_in_no_log_and_no_database() {
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).start().await;
    world.api().over(Protocol::Http2).get("/v1/secrets").await.expect(200);
    let join_secret = Canary::of(devbox.join_token.split('.').nth(1).unwrap());
    let api_token = Canary::of(&world.server.ready.token);
    for token in [&join_secret, &api_token] {
        assert_eq!(in_files(&world.path().join("state"), token), nothing());
        assert_eq!(in_files(&world.path().join("log"), token), nothing());
        assert_eq!(in_file(&world.path().join(&devbox.id).join("log/daemon.log"), token), nothing());
        assert_eq!(in_command_lines(token), nothing());
    }
    drop(daemon);
}

#[tokio::test]
async fn the_daemon_forgets_the_join_token_once_it_is_redeemed() {
    require_root!();
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).start().await;
    let join_secret = Canary::of(devbox.join_token.split('.').nth(1).unwrap());
    assert_eq!(in_memory(daemon.program.pid(), &join_secret).found, nothing());
}
