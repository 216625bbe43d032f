//! The environment, arguments and files of a launched command.

use std::io::Write;
use std::process::Stdio;

use devbox_launch_proto::{Answer, ErrorCode, Flags, Item};

use crate::build::hosted;
use crate::peer::{Peer, descriptor, header, inline, raw, refusal};
use crate::run::{environment, failure, limited_shim, message, program, run, shim, success};
use crate::secret_file::memfd_secret_exists;
use devbox_secrets_tests::needs::skipped;

const CANARY: &str = "canary-4e1f9d";

#[test]
fn injected_variables_come_after_inherited_ones_and_replace_them() {
    let peer = Peer::new(vec![descriptor(&[("A", "1"), ("HOME", "secret")])]);
    let mut shim = shim(&peer.socket());
    shim.env("HOME", "/root").env("LANG", "C");
    let output = run(&mut shim, ["env", "-0"]);
    let strings = environment(success(&output));
    let expected = ["LANG=C", "PATH=/usr/local/bin:/usr/bin:/bin", "A=1", "HOME=secret"];
    assert_eq!(strings, expected);
}

#[test]
fn any_value_arrives_whole() {
    let long = "x".repeat(100 << 10);
    let variables =
        [("A", ""), ("B", "one\ntwo\n"), ("C", "k=v=w"), ("D", "grüße ☂"), ("E", "'\"$(id)`"), ("F", &long)];
    let peer = Peer::new(vec![descriptor(&variables)]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "--", "env", "-0"]);
    let expected: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(environment(success(&output)), expected);
}

#[test]
fn a_thousand_variables_arrive() {
    let variables: Vec<(String, String)> =
        (0..1_000).map(|n| (format!("SECRET_{n:04}"), format!("{n:064}"))).collect();
    let peer = Peer::new(vec![descriptor(&variables)]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
    let expected: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(environment(success(&output)), expected);
}

#[test]
fn no_variables_are_no_error() {
    let nothing: [(&str, &str); 0] = [];
    let peer = Peer::new(vec![descriptor(&nothing), inline(&nothing)]);
    for _ in 0..2 {
        let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
        assert_eq!(success(&output), b"");
    }
}

#[test]
fn an_inline_answer_is_as_good() {
    let long = "x".repeat(100 << 10);
    let peer = Peer::new(vec![inline(&[("A", "1"), ("B", &long)])]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1".to_owned(), format!("B={long}")]);
}

#[test]
fn without_any_environment_the_default_path_is_searched() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let output = run(shim(&peer.socket()).env_clear(), ["env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1"]);
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let mut command = std::process::Command::new(crate::build::released());
    command.env_clear().env("DEVBOX_SECRETS_SOCKET", peer.socket());
    let output = run(&mut command, ["/usr/bin/printenv", "A"]);
    assert_eq!(success(&output), b"1\n");
}

#[test]
fn the_command_inherits_no_descriptor() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")]), inline(&[("A", "1")])]);
    let bare = std::process::Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
    for _ in 0..2 {
        let output = run(&mut shim(&peer.socket()), ["ls", "/proc/self/fd"]);
        assert_eq!(success(&output), bare.stdout);
    }
}

#[test]
fn no_value_is_in_any_argument() {
    let peer = Peer::new(vec![descriptor(&[("KEY", CANARY)])]);
    let script = "tr '\\0' ' ' < /proc/$$/cmdline; printenv KEY >&2";
    let output = run(&mut shim(&peer.socket()), ["sh", "-c", script]);
    let arguments = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(arguments.contains("printenv") && !arguments.contains(CANARY), "{arguments}");
    assert_eq!(message(&output).trim(), CANARY, "the value is where it belongs");
}

#[test]
fn arguments_arrive_as_they_were_given() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let arguments = ["sh", "-c", "cat /proc/$$/cmdline; :", "a b", "", "--only", "=", "ü"];
    let output = run(shim(&peer.socket()).arg("--"), arguments);
    let expected: Vec<u8> = arguments.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
    assert_eq!(success(&output), expected);
}

#[test]
fn standard_input_is_the_commands() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let mut shim = shim(&peer.socket());
    let mut child = shim.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"passes through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"passes through");
}

#[test]
fn signals_stay_as_they_were() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")]), descriptor(&[("A", "1")])]);
    let arguments = ["grep", "^Sig[BI]", "/proc/self/status"];
    let bare = std::process::Command::new(arguments[0]).args(&arguments[1..]).output().unwrap();
    for built in [crate::build::released(), hosted()] {
        let output = run(&mut program(built, &peer.socket()), arguments);
        assert_eq!(success(&output), bare.stdout);
    }
}

#[test]
fn the_selection_reaches_the_daemon() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let options =
        ["--only", "A,B", "--except=C", "--rename", "NEW=A", "--require=A", "--", "true", "--only=Z"];
    success(&run(&mut shim(&peer.socket()), options));
    let request = peer.request();
    let expected =
        [Item::Only(b"A"), Item::Only(b"B"), Item::Except(b"C"), Item::Rename(b"NEW=A"), Item::Require(b"A")];
    assert_eq!((request.flags, request.items()), (Flags::default(), expected.to_vec()));
}

#[test]
fn a_selection_of_thousands_of_names_reaches_the_daemon() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let names: Vec<String> = (0..4_000).map(|n| format!("NAME_{n:05}")).collect();
    success(&run(&mut shim(&peer.socket()), ["--only", &names.join(","), "true"]));
    assert_eq!(peer.request().items().len(), 4_000);
}

#[test]
fn a_selection_that_the_protocol_cannot_carry_is_refused() {
    let peer = Peer::new(vec![refusal(ErrorCode::Internal, "a request came")]);
    let names = vec!["N".repeat(200); 400].join(",");
    let line = failure(&run(&mut shim(&peer.socket()), ["--only", &names, "true"]), 125);
    assert!(line.contains("name fewer variables"), "{line}");
}

#[test]
fn under_a_tiny_lock_limit_the_secrets_come_inline() {
    if !memfd_secret_exists() {
        return skipped("a kernel with memfd_secret: without it nothing is locked");
    }
    let variables = [("A", "1"), ("B", CANARY)];
    let peer = Peer::new(vec![descriptor(&variables), inline(&variables)]);
    let mut shim = limited_shim("-l 0", &peer.socket());
    if nix::unistd::geteuid().is_root() {
        // Root is exempt from the limit.
        std::os::unix::process::CommandExt::uid(&mut shim, 65_534);
    }
    let output = run(&mut shim, ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1".to_owned(), format!("B={CANARY}")]);
    assert!(!peer.request().flags.inline);
    assert!(peer.request().flags.inline);
}

#[test]
fn without_a_free_descriptor_the_secrets_come_inline() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")]), inline(&[("A", "1")])]);
    // Three standard streams and the socket.
    let output = run(&mut limited_shim("-n 4", &peer.socket()), ["--clear-env", "/usr/bin/env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1"]);
    assert!(!peer.request().flags.inline);
    assert!(peer.request().flags.inline);
}

#[test]
fn without_a_descriptor_for_the_socket_the_limit_is_named() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let line = failure(&run(&mut limited_shim("-n 3", &peer.socket()), ["true"]), 125);
    assert!(line.contains("EMFILE") && line.contains("ulimit -n"), "{line}");
}

/// As if a security module refused it.
#[test]
fn a_descriptor_that_may_not_be_mapped_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"A=1\0").unwrap();
    let unreadable = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let answer = raw(&header(Answer::Descriptor, 1, 4), vec![unreadable.into()]);
    let peer = Peer::new(vec![answer, inline(&[("A", "1")])]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1"]);
    peer.request();
    assert!(peer.request().flags.inline);
}

#[test]
fn a_refusal_is_shown_and_nothing_runs() {
    let peer = Peer::new(vec![refusal(ErrorCode::Denied, "no rule grants uid 7; add one\u{1b}[2J")]);
    let line = failure(&run(&mut shim(&peer.socket()), ["echo", "ran"]), 125);
    assert_eq!(line, "devbox-exec: no rule grants uid 7; add one?[2J\n");
}

#[test]
fn optional_turns_a_refusal_into_a_warning() {
    let peer = Peer::new(vec![refusal(ErrorCode::Denied, "no rule"), descriptor(&[("A", "1")])]);
    let output = run(shim(&peer.socket()).env("A", "stale"), ["--optional", "printenv", "A"]);
    assert_eq!(output.stdout, b"stale\n", "the inherited environment is unchanged");
    assert_eq!(message(&output), "devbox-exec: warning: running without secrets: no rule\n");
    peer.request();
    assert!(peer.is_idle(), "it asks once");
}

#[test]
fn the_dev_profiles_program_launches_too() {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let output = run(&mut program(hosted(), &peer.socket()), ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1"]);
}
