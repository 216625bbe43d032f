//! The real program, with a standard error that nobody reads or that takes nothing: service goes on, and losses are counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devbox_secretsd::status::State;
use hyper::StatusCode;
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{FlowArg, tcflow};
use tokio::time::{sleep, timeout};

use devbox_secrets_tests::process::full_pipe;
use support::PATIENCE;
use support::control_plane::{ControlPlane, Script, bundle};
use support::daemon::{Daemon, PROGRAM};
use support::launch::launch;

/// Enough for their audit to fill a pipe, 64 KiB, several times over.
const LAUNCHES: usize = 800;

async fn ready(stderr: impl Into<Stdio>) -> (Arc<ControlPlane>, Daemon) {
    let plane = ControlPlane::start(bundle(1, &[("GOES", "one"), ("STAYS", "two")])).await;
    let daemon = Daemon::logging_to(stderr, &plane);
    daemon.until_ready().await;
    (plane, daemon)
}

async fn launches(daemon: &Daemon, expected: &str) {
    for _ in 0..LAUNCHES {
        assert_eq!(launch(&daemon.launch_socket()).await.unwrap(), expected);
    }
}

/// Everything that the daemon promises, with a log that stands still.
async fn all_goes_on(plane: &ControlPlane, daemon: Daemon) {
    launches(&daemon, "GOES=one\0STAYS=two\0").await;
    plane.answer(bundle(2, &[("STAYS", "two")]));
    daemon.until(|status| status.revision == Some(2)).await;
    launches(&daemon, "STAYS=two\0").await;
    plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    daemon.until(|status| status.state == State::Lost).await;
    assert!(launch(&daemon.launch_socket()).await.is_err());
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.end().await;
    assert_eq!(status.code(), Some(0));
}

/// The value of a counter.
fn counted(daemon: &Daemon, counter: &str) -> u64 {
    let mut stream = UnixStream::connect(daemon.admin_socket()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let line =
        answer.lines().find(|line| line.starts_with(&format!("devbox_secretsd_{counter}_total "))).unwrap();
    line.split(' ').next_back().unwrap().parse().unwrap()
}

async fn until_counted(daemon: &Daemon, counter: &str, least: usize) {
    let counts = async {
        while counted(daemon, counter) < least as u64 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counts).await.expect("lost lines are not counted");
}

#[tokio::test]
async fn a_pipe_that_is_not_read_stops_neither_launches_nor_revocation_nor_the_end() {
    let (_unread, pipe) = io::pipe().unwrap();
    let (plane, daemon) = ready(pipe).await;
    all_goes_on(&plane, daemon).await;
}

#[tokio::test]
async fn a_socket_that_is_not_read_as_the_journals_stops_neither_launches_nor_revocation_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("stdout")).unwrap();
    let stream = UnixStream::connect(dir.path().join("stdout")).unwrap();
    let _unread = listener.accept().unwrap();
    let (plane, daemon) = ready(std::os::fd::OwnedFd::from(stream)).await;
    all_goes_on(&plane, daemon).await;
}

#[tokio::test]
async fn a_terminal_that_is_paused_stops_neither_launches_nor_revocation_nor_the_end() {
    let terminal = openpty(None, None).unwrap();
    // As Ctrl-S does.
    tcflow(&terminal.slave, FlowArg::TCOOFF).unwrap();
    let (plane, daemon) = ready(terminal.slave).await;
    all_goes_on(&plane, daemon).await;
}

#[tokio::test]
async fn lines_that_a_full_disk_does_not_take_are_counted() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (plane, daemon) = ready(full).await;
    launches(&daemon, "GOES=one\0STAYS=two\0").await;
    until_counted(&daemon, "audit_dropped", LAUNCHES).await;
    until_counted(&daemon, "log_dropped", 1).await;
    all_goes_on(&plane, daemon).await;
}

#[tokio::test]
async fn lines_for_a_reader_that_has_gone_are_counted() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let (plane, daemon) = ready(pipe).await;
    launches(&daemon, "GOES=one\0STAYS=two\0").await;
    until_counted(&daemon, "audit_dropped", LAUNCHES).await;
    all_goes_on(&plane, daemon).await;
}

#[test]
fn a_failed_start_ends_though_its_message_is_not_read() {
    let (_unread, pipe) = full_pipe();
    let started = Instant::now();
    let status = Command::new(PROGRAM).args(["run", "--config", "/nowhere"]).stderr(pipe).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn the_last_line_of_a_refused_join_is_read_whole() {
    let plane = ControlPlane::start(bundle(1, &[])).await;
    *plane.enrol_refusal.lock().unwrap() =
        Some((StatusCode::UNAUTHORIZED, "the join token was used already"));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let daemon = Daemon::logging_to(File::create(&log).unwrap(), &plane);
    let (status, _) = daemon.end().await;
    assert_eq!(status.code(), Some(1));
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.ends_with('\n') && log.lines().last().unwrap().contains("used already"), "{log}");
}
