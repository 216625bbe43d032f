//! `--list`, `--help` and `--version`, and invalid command lines.

use std::path::Path;
use std::process::Stdio;

use devbox_launch_proto::{Answer, ErrorCode, Flags};

use crate::peer::{Peer, header, raw, refusal};
use crate::run::{failure, run, shim, success};

fn names(payload: &[u8], count: usize) -> Vec<u8> {
    [&header(Answer::Names, count, payload.len())[..], payload].concat()
}

fn nowhere() -> std::process::Command {
    shim(Path::new("/nonexistent/launch.sock"))
}

#[test]
fn a_list_has_one_name_a_line() {
    let peer = Peer::new(vec![raw(&names(b"API_KEY\0DB\0", 2), vec![])]);
    assert_eq!(success(&run(&mut shim(&peer.socket()), ["--list"])), b"API_KEY\nDB\n");
    assert_eq!(peer.request().flags, Flags { list: true, ..Flags::default() });
}

#[test]
fn an_empty_list_is_empty() {
    let peer = Peer::new(vec![raw(&names(b"", 0), vec![])]);
    assert_eq!(success(&run(&mut shim(&peer.socket()), ["--list"])), b"");
}

#[test]
fn names_that_are_none_never_reach_the_terminal() {
    let peer = Peer::new(vec![raw(&names(b"A\0\x1b[2J\0", 2), vec![])]);
    failure(&run(&mut shim(&peer.socket()), ["--list"]), 125);
}

#[test]
fn a_list_that_is_refused_fails_even_if_optional() {
    let peer = Peer::new(vec![refusal(ErrorCode::NotReady, "no secrets yet; see the log")]);
    let line = failure(&run(&mut shim(&peer.socket()), ["--list", "--optional"]), 125);
    assert_eq!(line, "devbox-exec: no secrets yet; see the log\n");
}

#[test]
fn the_version_is_the_packages() {
    let expected = format!("devbox-exec {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(success(&run(&mut nowhere(), ["--version"])), expected.as_bytes());
}

#[test]
fn an_output_that_is_full_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = nowhere().arg("--help").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert!(failure(&output, 125).contains("No space left"));
}

#[test]
fn mistakes_are_named_and_lead_to_the_manual_even_if_optional() {
    let cases: [(&[&str], &str); 7] = [
        (&["--onyl=A", "true"], "'--onyl'"),
        (&["-x", "true"], "'-x'"),
        (&["--wait", "soon", "true"], "'soon'"),
        (&["--only", "A-B", "true"], "'A-B'"),
        (&["--socket"], "'--socket'"),
        (&["--list", "true"], "--list"),
        (&[], "no command"),
    ];
    for (arguments, word) in cases {
        let line = failure(&run(nowhere().arg("--optional"), arguments), 125);
        assert!(line.contains(word) && line.contains("devbox-exec --help"), "{line}");
    }
}
