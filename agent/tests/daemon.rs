//! The real program against a control plane with real TLS and real HPKE: start, status, reload, end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use devbox_secretsd::status::{State, Variable};
use hyper::StatusCode;
use nix::sys::signal::Signal;

use devbox_secrets_tests::authority::{DEVBOX, TOKEN_SECRET};
use devbox_secrets_tests::needs;
use support::control_plane::{ControlPlane, Script, bundle};
use support::daemon::{Daemon, PROGRAM};
use support::{config_file, write_config};

const CANARY: &str = "canary-value-4711";

async fn ready() -> (std::sync::Arc<ControlPlane>, Daemon) {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", CANARY)])).await;
    let daemon = Daemon::start(&plane, &[]);
    daemon.until_ready().await;
    (plane, daemon)
}

fn status_command(program: &Path, socket: &Path, json: bool) -> Command {
    let mut command = Command::new(program);
    command.arg("status").arg("--admin-socket").arg(socket);
    command.args(json.then_some("--json"));
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn the_status_names_everything_but_the_value() {
    let (plane, daemon) = ready().await;
    let status = daemon.until_ready().await;
    assert_eq!(status.devbox_id.as_deref(), Some(DEVBOX));
    assert_eq!((status.server, status.revision), (plane.url().to_string(), Some(1)));
    assert!(status.hardening.no_core_dump.achieved && status.hardening.not_dumpable.achieved);
    assert!(status.memory.bytes_locked > 0);
    assert!(status.lease_left.is_some_and(|left| left.as_secs() > 3_500));
    let variable = Variable { env: "API_KEY".to_owned(), secret: "API_KEY".to_owned(), version: 1 };
    assert_eq!(status.secrets, [variable]);

    for json in [false, true] {
        let output = status_command(Path::new(PROGRAM), &daemon.admin_socket(), json).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output).contains("API_KEY") && !text(&output).contains(CANARY));
    }
}

#[tokio::test]
async fn a_change_is_served_and_a_shut_down_devbox_has_nothing() {
    let (plane, daemon) = ready().await;
    plane.answer(bundle(2, &[("OTHER", CANARY)]));
    let status = daemon.until(|status| status.revision == Some(2)).await;
    assert_eq!(status.secrets[0].env, "OTHER");
    plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    let status = daemon.until(|status| status.state == State::Lost).await;
    assert!(status.reason.unwrap().contains("shut down"));
    assert!(status.secrets.is_empty());
    assert_eq!(status.memory.bytes_locked, 0);
}

#[tokio::test]
async fn a_lost_control_plane_is_told_while_memory_still_serves() {
    let (plane, daemon) = ready().await;
    plane.answer(Script::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "database gone"));
    let status = daemon.until(|status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().message.contains("database gone"));
    assert_eq!(status.state, State::Ready);
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_with_neither_socket_nor_secret_left() {
    let (_plane, daemon) = ready().await;
    let sockets = [daemon.launch_socket(), daemon.admin_socket()];
    let modes = sockets.each_ref().map(|path| fs::metadata(path).unwrap().mode() & 0o777);
    assert_eq!(modes, [0o666, 0o600]);
    let dir = sockets[0].parent().unwrap().to_owned();
    daemon.signal(Signal::SIGTERM);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!dir.exists() || sockets.iter().all(|path| !path.exists()));
    assert!(log.contains("secrets taken up"), "{log}");
    for secret in [CANARY, TOKEN_SECRET] {
        assert!(!log.contains(secret), "a trace log holds {secret}");
    }
}

#[tokio::test]
async fn signals_that_mean_nothing_to_it_are_ignored() {
    let (_plane, daemon) = ready().await;
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        daemon.signal(signal);
    }
    daemon.until_ready().await;
    let sockets = [daemon.launch_socket(), daemon.admin_socket()];
    daemon.signal(Signal::SIGTERM);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(sockets.iter().all(|path| !path.exists()));
}

#[test]
fn a_join_token_that_systemds_acl_shows_as_readable_by_the_group_is_no_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "no token").unwrap();
    let log = |mode: u32, credentials: &Path| {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let mut run = Command::new(PROGRAM);
        run.args(["run", "--server", "https://127.0.0.1:1", "--socket"]).arg(dir.path().join("launch.sock"));
        run.arg("--join-token-file").arg(&file).env("CREDENTIALS_DIRECTORY", credentials);
        text(&run.output().unwrap())
    };
    let warning = "other users may read";
    let (here, elsewhere) = (dir.path(), Path::new("/nowhere"));
    assert!(!log(0o440, here).contains(warning), "{}", log(0o440, here));
    assert!(log(0o440, here).contains("holds no join token"));
    assert!(log(0o444, here).contains(warning));
    assert!(log(0o440, elsewhere).contains(warning));
}

#[tokio::test]
async fn its_process_can_be_neither_dumped_nor_read_by_its_user() {
    let (_plane, daemon) = ready().await;
    // A process that is not dumpable belongs to root in /proc, whoever runs it (proc(5)).
    assert_eq!(fs::metadata(format!("/proc/{}/environ", daemon.pid())).unwrap().uid(), 0);
    assert!(fs::read(format!("/proc/{}/cmdline", daemon.pid())).is_ok_and(|argv| !argv.is_empty()));
}

#[tokio::test]
async fn a_used_token_ends_the_program_with_the_servers_reason() {
    let plane = ControlPlane::start(bundle(1, &[])).await;
    *plane.enrol_refusal.lock().unwrap() =
        Some((StatusCode::UNAUTHORIZED, "the join token was used already"));
    let daemon = Daemon::start(&plane, &[]);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("devbox-secretsd: ") && last.contains("used already"), "{last}");
    assert!(!log.contains(TOKEN_SECRET));
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for_and_status_says_so() {
    let plane = ControlPlane::start(bundle(1, &[("A", CANARY)])).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "starting up"));
    let daemon = Daemon::start(&plane, &[]);
    let status = daemon.until(|status| status.last_error.is_some()).await;
    assert_eq!(status.state, State::Starting);
    assert!(status.reason.unwrap().contains("starting up"));
    *plane.enrol_refusal.lock().unwrap() = None;
    daemon.until_ready().await;
}

#[tokio::test]
async fn rules_are_taken_up_at_sighup_and_kept_where_the_file_is_a_mistake() {
    let (_dir, config) = config_file("");
    let write = |text: &str| write_config(&config, text);
    let plane = ControlPlane::start(bundle(1, &[("A", CANARY)])).await;
    let more = ["--config", config.to_str().unwrap()];
    let daemon = Daemon::start(&plane, &more);
    daemon.until_ready().await;
    write("[[rule]]\nuid = 0\nenv = [\"*\"]\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("rules reloaded").await;
    write("[[rule]]\ncolour = 1\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("old rules stay in force").await;
    daemon.signal(Signal::SIGTERM);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("old rules stay in force") && log.contains("agent.toml:2"), "{log}");
}

#[tokio::test]
async fn another_user_is_refused_by_the_admin_socket_even_where_its_mode_lets_him_in() {
    if !needs::root() {
        return;
    }
    let (_plane, daemon) = ready().await;
    let socket = daemon.admin_socket();
    fs::set_permissions(socket.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("devbox-secretsd");
    fs::copy(PROGRAM, &program).unwrap();
    let as_nobody =
        || text(&status_command(&program, &socket, true).uid(65_534).gid(65_534).output().unwrap());

    assert!(as_nobody().contains("Permission denied"), "{}", as_nobody());
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let answer = as_nobody();
    assert!(answer.contains("refuses (403 Forbidden)") && !answer.contains("API_KEY"), "{answer}");
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_status_from_others() {
    let (_plane, daemon) = ready().await;
    let silent: Vec<_> = (0..32).map(|_| UnixStream::connect(daemon.admin_socket()).unwrap()).collect();
    daemon.until_ready().await;
    drop(silent);
}

#[test]
fn check_prints_what_would_be_in_force() {
    let output = Command::new(PROGRAM)
        .args(["check", "--server", "https://secrets.example", "--join-token-file", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for part in ["https://secrets.example:443", "join token from standard input", "MAY HAVE"] {
        assert!(text(&output).contains(part), "{}", text(&output));
    }
}
