//! Standard streams that the caller closed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use devbox_launch_proto::{Answer, ErrorCode};
use tempfile::tempdir;

use crate::build::released;
use crate::peer::{Peer, Script, descriptor, header, inline};
use crate::run::message;

/// Prints which of the three streams the process has, to the file that is its argument.
const PROBE: &str =
    "open=; for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && open=$open$n; done; printf %s \"$open\" > \"$1\"";

/// Every choice of streams to close.
fn each_choice() -> impl Iterator<Item = Vec<u8>> {
    (0..8).map(|choice| (0..3).filter(|stream| choice & 1 << stream != 0).collect())
}

/// A command under a shell that closes these streams first.
fn without(closed: &[u8], program: &Path) -> Command {
    let closing: String = closed.iter().map(|stream| format!(" {stream}>&-")).collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec \"$@\"{closing}"), "sh"]).arg(program);
    command.stdin(Stdio::null());
    command
}

fn launch(closed: &[u8], peer: &Peer, arguments: &[&str]) -> Output {
    without(closed, released()).arg("--socket").arg(peer.socket()).args(arguments).output().unwrap()
}

#[test]
fn the_command_has_the_streams_that_the_caller_left_open_and_no_other() {
    let folder = tempdir().unwrap();
    let result = folder.path().join("open");
    let probe = ["/bin/sh", "-c", PROBE, "sh", result.to_str().unwrap()];
    for closed in each_choice() {
        let expected: String =
            "012".chars().filter(|stream| !closed.contains(&(*stream as u8 - b'0'))).collect();
        for answer in [descriptor(&[("A", "1")]), inline(&[("A", "1")])] {
            let output = launch(&closed, &Peer::new(vec![answer]), &probe);
            assert!(output.status.success(), "{closed:?}: {}: {}", output.status, message(&output));
            assert_eq!(std::fs::read_to_string(&result).unwrap(), expected, "without {closed:?}");
        }
    }
}

/// Answers, then returns the further bytes that the program sends.
fn listening(answer: Vec<u8>) -> (Script, Receiver<Vec<u8>>) {
    let (sender, heard) = channel();
    let script: Script = Box::new(move |mut stream| {
        stream.write_all(&answer).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        sender.send(rest).unwrap();
    });
    (script, heard)
}

#[test]
fn each_failure_keeps_its_status_and_no_message_reaches_the_daemon() {
    let folder = tempdir().unwrap();
    let not_executable = folder.path().join("data");
    std::fs::write(&not_executable, "data").unwrap();
    let refusal = [&header(Answer::Error(ErrorCode::Denied), 0, 7)[..], b"no rule"].concat();
    let variables = [&header(Answer::Inline, 1, 4)[..], b"A=1\0"].concat();
    let broken = [&header(Answer::Inline, 1, 4)[..], b"1=A\0"].concat();
    let cases = [
        (&refusal, "true", 125),
        (&broken, "true", 125),
        (&variables, not_executable.to_str().unwrap(), 126),
        (&variables, "/no/such/command", 127),
    ];
    for closed in each_choice() {
        for (answer, command, status) in cases {
            let (script, heard) = listening(answer.clone());
            let output = launch(&closed, &Peer::new(vec![script]), &[command]);
            assert_eq!(output.status.code(), Some(status), "without {closed:?}: {}", message(&output));
            assert_eq!(heard.recv().unwrap(), b"", "without {closed:?}");
            assert_eq!(message(&output).is_empty(), closed.contains(&2), "without {closed:?}");
        }
    }
}

#[test]
fn a_list_without_standard_output_is_a_failure() {
    let names = [&header(Answer::Names, 1, 2)[..], b"A\0"].concat();
    let (script, heard) = listening(names);
    let output = launch(&[1], &Peer::new(vec![script]), &["--list"]);
    assert_eq!(output.status.code(), Some(125), "{}", message(&output));
    assert!(message(&output).contains("cannot write to standard output"), "{}", message(&output));
    assert_eq!(heard.recv().unwrap(), b"");
}
