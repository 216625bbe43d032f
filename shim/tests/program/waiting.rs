//! A daemon that is not running, still starting, or silent.

use std::fs::read_to_string;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use devbox_launch_proto::{Answer, ErrorCode};
use tempfile::tempdir;

use crate::peer::{Peer, Script, descriptor, header, raw, refusal, socket_in};
use crate::run::{failure, run, shim, success};

/// The daemon's grace for an answer, and what a slow machine may add to it.
const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(25);

/// Waits until the process sleeps between two tries.
fn wait_until_asleep(child: &mut Child) {
    let call = format!("{} ", libc::SYS_clock_nanosleep);
    let path = format!("/proc/{}/syscall", child.id());
    while !read_to_string(&path).unwrap().starts_with(&call) {
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        std::thread::yield_now();
    }
}

#[test]
fn a_missing_daemon_fails_at_once_with_a_remedy() {
    let folder = tempdir().unwrap();
    let line = failure(&run(&mut shim(&socket_in(folder.path())), ["echo", "ran"]), 125);
    assert!(line.contains("ENOENT") && line.contains("devbox-secretsd") && line.contains("--wait"), "{line}");
}

#[test]
fn a_dead_socket_fails_at_once_with_a_remedy() {
    let folder = tempdir().unwrap();
    drop(UnixListener::bind(socket_in(folder.path())).unwrap());
    let line = failure(&run(&mut shim(&socket_in(folder.path())), ["echo", "ran"]), 125);
    assert!(line.contains("ECONNREFUSED") && line.contains("--wait"), "{line}");
}

#[test]
fn a_path_too_long_for_a_socket_is_told_so() {
    let folder = tempdir().unwrap();
    let line = failure(&run(&mut shim(&folder.path().join("s".repeat(108))), ["true"]), 125);
    assert!(line.contains("at most 107"), "{line}");
    assert!(failure(&run(&mut shim("".as_ref()), ["true"]), 125).contains("--socket"));
}

#[test]
fn optional_runs_the_command_without_a_daemon() {
    let folder = tempdir().unwrap();
    let output = run(&mut shim(&socket_in(folder.path())), ["--optional", "echo", "ran"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"ran\n"[..]));
    assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn a_wait_that_ends_is_a_failure() {
    let folder = tempdir().unwrap();
    let start = Instant::now();
    let line = failure(&run(&mut shim(&socket_in(folder.path())), ["--wait=0.15", "true"]), 125);
    assert!(line.contains("ENOENT"), "{line}");
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_socket_that_appears_later_is_waited_for() {
    let folder = tempdir().unwrap();
    let mut shim = shim(&socket_in(folder.path()));
    let mut child = shim.args(["--wait", "60", "printenv", "A"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until_asleep(&mut child);
    let peer = Peer::listen_in(folder, vec![descriptor(&[("A", "1")])]);
    assert_eq!(child.wait_with_output().unwrap().stdout, b"1\n");
    assert!((1..60_000).contains(&peer.request().wait_ms), "the daemon gets what is left");
}

fn hang_up() -> Script {
    Box::new(drop)
}

#[test]
fn a_wait_goes_on_through_a_restart_and_every_refusal_that_may_pass() {
    let scripts = vec![
        refusal(ErrorCode::NotReady, "the daemon is stopping"),
        hang_up(),
        raw(&header(Answer::Inline, 1, 4)[..7], vec![]),
        refusal(ErrorCode::Busy, "too many launches"),
        refusal(ErrorCode::Stale, "the control plane is away"),
    ];
    let attempts = scripts.len();
    let peer = Peer::new(scripts);
    let mut shim = shim(&peer.socket());
    let mut child = shim.args(["--wait", "60", "printenv", "A"]).stdout(Stdio::piped()).spawn().unwrap();
    for _ in 0..attempts {
        let request = peer.request();
        assert!(request.flags.patient && (1..=60_000).contains(&request.wait_ms), "{request:?}");
    }
    // No daemon listens any more: the next one has to create the socket again.
    wait_until_asleep(&mut child);
    let folder = peer.end();
    std::fs::remove_file(socket_in(folder.path())).unwrap();
    let next = Peer::listen_in(folder, vec![descriptor(&[("A", "1")])]);
    assert_eq!(child.wait_with_output().unwrap().stdout, b"1\n");
    assert!(next.request().flags.patient);
}

#[test]
fn a_wait_ends_at_once_with_a_refusal_that_waiting_cannot_help() {
    for code in [ErrorCode::Denied, ErrorCode::Missing, ErrorCode::Invalid, ErrorCode::Internal] {
        let peer = Peer::new(vec![refusal(code, "for good")]);
        let line = failure(&run(&mut shim(&peer.socket()), ["--wait=86400", "true"]), 125);
        assert_eq!(line, "devbox-exec: for good\n");
    }
}

#[test]
fn a_wait_that_ends_in_refusals_says_why() {
    let peer = Peer::new((0..100).map(|_| refusal(ErrorCode::Busy, "too many launches")).collect());
    let start = Instant::now();
    let line = failure(&run(&mut shim(&peer.socket()), ["--wait=0.3", "true"]), 125);
    assert_eq!(line, "devbox-exec: too many launches\n");
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn without_a_wait_one_refusal_is_final() {
    let peer = Peer::new(vec![refusal(ErrorCode::Busy, "too many launches"), descriptor(&[("A", "1")])]);
    failure(&run(&mut shim(&peer.socket()), ["true"]), 125);
    assert!(!peer.request().flags.patient && peer.is_idle());
}

#[test]
fn the_daemon_is_told_how_long_to_wait() {
    for (options, wait_ms) in [(&[][..], 5_000), (&["--wait=2.5"], 2_500), (&["--wait", "0"], 0)] {
        let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
        success(&run(shim(&peer.socket()).args(options), ["true"]));
        assert_eq!(peer.request().wait_ms, wait_ms);
    }
}

/// Sends no byte until the program closes the connection.
fn silence() -> Script {
    Box::new(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

/// Sends one byte at a time: no single receive is slow, and the answer is never complete.
fn trickle() -> Script {
    Box::new(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let endless = header(Answer::Inline, 1, 1 << 30);
        for byte in endless.into_iter().chain(std::iter::repeat(b'A')) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            // The program sends nothing more: this ends when it closes the connection, or in time for the next byte.
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        }
    })
}

#[test]
fn a_daemon_that_never_finishes_its_answer_is_given_up() {
    let give_up = |script: Script| {
        std::thread::spawn(move || {
            let peer = Peer::new(vec![script]);
            let start = Instant::now();
            let line = failure(&run(&mut shim(&peer.socket()), ["--wait=0", "true"]), 125);
            assert!(line.contains("did not answer within 10 s"), "{line}");
            assert!((GRACE..PATIENCE).contains(&start.elapsed()), "{:?}", start.elapsed());
        })
    };
    let tests = [give_up(silence()), give_up(trickle())];
    for test in tests {
        test.join().unwrap();
    }
}
