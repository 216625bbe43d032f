//! A standard error that takes no lines (a container runtime under back-pressure, Ctrl-S, a full
//! disk) stops nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use devbox_secrets_tests::process::full_pipe;
use nix::sys::signal::Signal;

use crate::program::{Dev, PROGRAM};

/// More lines than the pipe and the program's queue hold together.
const REQUESTS: usize = 8_000;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

fn admin_dev(directory: &tempfile::TempDir, stderr: Stdio) -> Dev {
    Dev::start_with(&directory.path().join("state"), stderr, &["--admin", "127.0.0.1:0"])
}

/// Sends `count` requests, one after the other on one connection, and fails unless each is answered
/// with 200.
fn request_many(dev: &Dev, count: usize) {
    let mut stream = TcpStream::connect(dev.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for number in 0..count {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 1_024];
        let len = stream.read(&mut answer).unwrap_or_else(|error| panic!("request {number}: {error}"));
        assert!(answer[..len].starts_with(b"HTTP/1.1 200"), "request {number}");
    }
}

fn lost_lines(dev: &Dev) -> u64 {
    let mut stream = TcpStream::connect(dev.text("admin").strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let count =
        text.lines().find_map(|line| line.strip_prefix("devbox_secrets_server_log_lines_lost_total "));
    count.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn requests_metrics_and_sigterm_do_not_wait_for_a_reader_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (unread, stderr) = io::pipe().unwrap();
    let dev = admin_dev(&directory, stderr.into());
    request_many(&dev, REQUESTS);
    assert!(lost_lines(&dev) > 0, "{REQUESTS} lines do not fit");
    assert_eq!(dev.end(Signal::SIGTERM).0, Some(0));
    drop(unread);
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, without_reader) = io::pipe().unwrap();
    drop(reader);
    for stderr in [Stdio::from(full), without_reader.into()] {
        let directory = tempfile::tempdir().unwrap();
        let dev = admin_dev(&directory, stderr);
        request_many(&dev, 10);
        let deadline = std::time::Instant::now() + PATIENCE;
        while lost_lines(&dev) < 10 {
            assert!(std::time::Instant::now() < deadline);
        }
        assert_eq!(dev.end(Signal::SIGTERM).0, Some(0));
    }
}

#[test]
fn a_failure_that_cannot_be_written_still_ends_the_program_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("server.toml");
    fs::write(&wrong, "[state]\n").unwrap();
    let file = wrong.to_str().unwrap();
    for (args, code) in [(&["serve", "--config", file][..], 2), (&["nonsense"], 2)] {
        let (_unread, stderr) = full_pipe();
        let status = Command::new(PROGRAM).args(args).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_failure_is_the_last_line_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let output = Command::new(PROGRAM).arg("serve").arg("--config").arg(&missing).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.ends_with('\n') && text.contains(missing.to_str().unwrap()), "{text:?}");
}
