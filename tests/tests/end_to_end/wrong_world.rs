//! Everything around a daemon is wrong, once each: it says what, says what to do, and leaves nothing behind.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::process::{self, Output};
use devbox_secrets_tests::programs;
use devbox_secrets_tests::world::{World, directory};
use nix::sys::signal::Signal;

/// A token of the right form that no server has made.
fn made_up_token() -> String {
    format!("dbx_{}.{}.{}", "0".repeat(32), "A".repeat(43), "0".repeat(64))
}

/// Waits for a daemon that must end, and returns the end of its log.
async fn ends_with(daemon: &mut Daemon, status: i32) -> String {
    let ended = daemon.program.end().await;
    let log = daemon.program.log();
    assert_eq!(ended.code(), Some(status), "{}", daemon.program.tail());
    assert!(!daemon.socket.exists() && !daemon.admin_socket.exists(), "no socket is left");
    log
}

async fn daemon_says(arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::daemon());
    command.args(arguments);
    process::run(command, b"").await
}

#[tokio::test]
async fn a_token_that_pins_another_ca_ends_the_daemon() {
    let world = World::start().await;
    let other = World::start().await;
    let devbox = other.devbox("box").await;
    let setup = world.setup(&devbox);
    let log = ends_with(&mut setup.spawn(), 1).await;
    assert!(log.contains("not the server that the join token was made for"), "{log}");
    other.setup(&devbox).start().await;
}

#[tokio::test]
async fn a_file_without_a_token_ends_the_daemon() {
    let directory = directory();
    let setup = Setup::new(directory.path(), "https://127.0.0.1:1", "not a token");
    let ended = setup.spawn().program.end().await.code();
    assert!(matches!(ended, Some(1 | 2)), "{ended:?}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_never_sent_the_token() {
    let world = World::with_secret("API_KEY", "s3cret").await;
    let devbox = world.devbox("box").await;
    let plain = world.server.ready.api.replace("http://", "https://");
    let daemon = world.setup(&devbox).server(&plain).spawn();
    let options = ["--wait", "1"];
    let refused = Launch::new(&daemon.socket).options(&options).run(&["true"]).await;
    assert_eq!(refused.status, 125, "{}", refused.stderr);
    drop(daemon);
    world.setup(&devbox).start().await;
}

#[tokio::test]
async fn a_server_without_tls_in_its_url_is_refused_at_once() {
    let directory = directory();
    let setup = Setup::new(directory.path(), "http://127.0.0.1:1", &made_up_token());
    let log = ends_with(&mut setup.spawn(), 2).await;
    assert!(log.contains("https://"), "{log}");
}

#[tokio::test]
async fn a_daemon_waits_for_a_dead_server_and_launches_wait_for_the_daemon() {
    let mut world = World::with_secret("API_KEY", "s3cret").await;
    let devbox = world.devbox("box").await;
    world.server.program.kill();

    let setup = world.setup(&devbox);
    let before = Launch::new(&setup.socket());
    let waiting = tokio::spawn(async move { before.options(&["--wait", "25"]).environment().await });
    let mut daemon = setup.spawn();
    let launch = Launch::new(&daemon.socket);
    let in_vain = launch.clone().options(&["--wait", "0.5"]).run(&["true"]).await;
    assert_eq!(in_vain.status, 125);
    assert_eq!(in_vain.stderr.lines().count(), 1, "{}", in_vain.stderr);
    let optional = launch.options(&["--wait", "0", "--optional"]).run(&["sh", "-c", "exit 42"]).await;
    assert_eq!(optional.status, 42);
    assert_eq!(optional.stderr.lines().count(), 1, "a warning: {}", optional.stderr);

    world.server.start_again().await;
    daemon.ready().await;
    assert_eq!(waiting.await.unwrap()["API_KEY"], b"s3cret");
}

#[tokio::test]
async fn an_interrupted_start_leaves_no_socket() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let directory = directory();
        let setup = Setup::new(directory.path(), "https://127.0.0.1:1", &made_up_token());
        let mut daemon = setup.spawn();
        devbox_secrets_tests::wait::until("the launch socket", async || daemon.socket.exists().then_some(()))
            .await;
        daemon.program.signal(signal);
        ends_with(&mut daemon, 0).await;
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let world = World::start().await;
    let setup = world.setup(&world.devbox("box").await);
    let _ = setup.command();
    for socket in [setup.socket(), setup.admin_socket()] {
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
    }
    let mut daemon = setup.start().await;
    daemon.program.kill();
    assert!(daemon.socket.exists(), "kill -9 leaves the socket");
    let again = world.devbox("again").await;
    let files = fs::read_dir(setup.socket().parent().unwrap()).unwrap().count();
    assert_eq!(files, 2);
    world.setup(&again).start().await;
}

#[tokio::test]
async fn something_else_at_the_sockets_path_is_left_alone() {
    let world = World::start().await;
    let setup = world.setup(&world.devbox("box").await);
    let _ = setup.command();
    fs::write(setup.socket(), "a person's file").unwrap();
    let mut daemon = setup.spawn();
    let ended = daemon.program.end().await;
    assert!(!ended.success());
    assert!(daemon.program.log().contains("launch.sock"), "{}", daemon.program.tail());
    assert_eq!(fs::read_to_string(setup.socket()).unwrap(), "a person's file");
}

#[tokio::test]
async fn a_second_daemon_on_one_socket_is_refused_and_the_first_goes_on() {
    let world = World::with_secret("API_KEY", "s3cret").await;
    let setup = world.setup(&world.devbox("box").await);
    let first = setup.start().await;
    let mut second = setup.spawn();
    assert_eq!(second.program.end().await.code(), Some(1));
    let log = second.program.log();
    assert!(log.contains("launch.sock") && log.contains("is served by another process"), "{log}");
    assert_eq!(Launch::new(&first.socket).environment().await["API_KEY"], b"s3cret");
    assert_eq!(first.status_command(&[]).await.status, 0);
}

#[tokio::test]
async fn wrong_flags_and_missing_files_are_named() {
    for (arguments, named) in [
        (
            vec!["run", "--server", "https://127.0.0.1:1", "--join-token-file", "/no/such/token"],
            "/no/such/token",
        ),
        (vec!["run", "--server", "not a url", "--join-token-file", "/dev/null"], "--server"),
        (vec!["no-such-command"], "no-such-command"),
    ] {
        let directory = directory();
        let socket = directory.path().join("launch.sock").display().to_string();
        let socket = if arguments[0] == "run" { vec!["--socket", &socket] } else { vec![] };
        let output = daemon_says(&[arguments.clone(), socket].concat()).await;
        assert!(matches!(output.status, 1 | 2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(named), "{arguments:?}: {}", output.stderr);
    }
}

#[tokio::test]
async fn the_server_names_a_busy_address_and_wrong_flags() {
    let world = World::start().await;
    let busy = world.server.ready.api_address().to_string();
    let directory = directory();
    let (state, mistyped) = (directory.path().join("state"), directory.path().join("mistyped"));
    for (arguments, named) in [
        (vec!["dev", "--state", state.to_str().unwrap(), "--api", &busy], busy.as_str()),
        (vec!["account", "list", "--state", mistyped.to_str().unwrap()], "mistyped"),
    ] {
        let mut command = Command::new(programs::server());
        command.args(&arguments);
        let output = process::run(command, b"").await;
        assert!(matches!(output.status, 1 | 2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(named), "{arguments:?}: {}", output.stderr);
    }
    assert!(!mistyped.exists(), "an operator's command makes no state directory");
}
