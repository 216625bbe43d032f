//! Finding the command, running it, and its exit status.

use std::fs::{OpenOptions, create_dir};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use tempfile::{TempDir, tempdir};

use crate::peer::{Peer, descriptor};
use crate::run::{failure, run, shim, success, write_file};

/// A peer for one launch, and the program with a `PATH` of these folders.
fn launch(path: &str) -> (Peer, Command) {
    let peer = Peer::new(vec![descriptor(&[("A", "1")])]);
    let mut shim = shim(&peer.socket());
    shim.env("PATH", path);
    (peer, shim)
}

fn file(folder: &Path, name: &str, text: &str, mode: u32) {
    write_file(&folder.join(name), text, mode);
}

fn script(says: &str) -> String {
    format!("#!/bin/sh\necho {says}\n")
}

fn text(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

#[test]
fn the_commands_own_exit_status_comes_through() {
    for status in [0, 1, 42, 125, 255] {
        let (_peer, mut shim) = launch("/bin");
        let output = run(&mut shim, ["sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
    }
}

#[test]
fn death_by_a_signal_comes_through() {
    let (_peer, mut shim) = launch("/bin");
    let output = run(&mut shim, ["sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn a_command_that_is_nowhere_is_127_and_the_path_is_shown() {
    let (_peer, mut shim) = launch("/usr/bin:/bin");
    let line = failure(&run(&mut shim, ["no-such-command"]), 127);
    assert!(line.contains("'no-such-command': not found in PATH (/usr/bin:/bin)"), "{line}");
}

#[test]
fn a_path_that_is_not_there_is_127() {
    for path in ["/no/such/file", "./no-such-file", "/bin/sh/x", ""] {
        let (_peer, mut shim) = launch("/bin");
        let line = failure(&run(shim.arg("--"), [path]), 127);
        assert!(line.contains(&format!("'{path}'")), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_executed_is_126_with_path_and_reason() {
    let folder = tempdir().unwrap();
    file(folder.path(), "mode", &script("ran"), 0o644);
    file(folder.path(), "other", "\u{7f}ELF of another machine", 0o755);
    create_dir(folder.path().join("folder")).unwrap();
    for (name, reason) in [("mode", "EACCES"), ("other", "ENOEXEC"), ("folder", "EACCES")] {
        let path = format!("{}/{name}", text(&folder));
        for command in [name, &path] {
            let (_peer, mut shim) = launch(text(&folder));
            let line = failure(&run(&mut shim, [command]), 126);
            assert!(line.contains(&format!("'{path}'")) && line.contains(reason), "{line}");
        }
    }
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_the_shell_as_env_does() {
    let folder = tempdir().unwrap();
    file(folder.path(), "script", "printf '%s|' \"$0\" \"$@\"; exit 7", 0o755);
    let path = format!("{}/script", text(&folder));
    for command in ["script", &path] {
        let arguments = [command, "-x", "a b", ""];
        let env = Command::new("/usr/bin/env").env("PATH", text(&folder)).args(arguments).output().unwrap();
        let (_peer, mut shim) = launch(text(&folder));
        let output = run(&mut shim, arguments);
        assert_eq!(output.status.code(), Some(7), "{}", crate::run::message(&output));
        assert_eq!((output.status, &output.stdout), (env.status, &env.stdout));
        assert_eq!(output.stdout, format!("{path}|-x|a b||").into_bytes());
    }
}

#[test]
fn a_file_that_is_being_written_is_126() {
    let folder = tempdir().unwrap();
    file(folder.path(), "busy", &script("ran"), 0o755);
    let _writer = OpenOptions::new().append(true).open(folder.path().join("busy")).unwrap();
    let (_peer, mut shim) = launch(text(&folder));
    let line = failure(&run(&mut shim, ["busy"]), 126);
    assert!(line.contains("ETXTBSY"), "{line}");
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_command() {
    let folder = tempdir().unwrap();
    file(folder.path(), "script", "#!/no/such/shell\n", 0o755);
    let (_peer, mut shim) = launch(text(&folder));
    let line = failure(&run(&mut shim, ["script"]), 127);
    assert!(line.contains("interpreter") && line.contains(text(&folder)), "{line}");
}

#[test]
fn the_first_folder_that_can_run_it_wins() {
    let [missing, denied, first, second] = [(); 4].map(|()| tempdir().unwrap());
    file(denied.path(), "tool", &script("denied"), 0o644);
    file(first.path(), "tool", &script("first"), 0o755);
    file(second.path(), "tool", &script("second"), 0o755);
    let folders = ["/no/such/folder", "/bin/sh", text(&missing), text(&denied), text(&first), text(&second)];
    let (_peer, mut shim) = launch(&folders.join(":"));
    assert_eq!(success(&run(&mut shim, ["tool"])), b"first\n");
}

#[test]
fn an_empty_folder_in_the_path_is_the_current_one() {
    let folder = tempdir().unwrap();
    file(folder.path(), "here", &script("here"), 0o755);
    for path in ["", ":/bin", "/bin:", "/bin::/usr/bin"] {
        let (_peer, mut shim) = launch(path);
        assert_eq!(success(&run(shim.current_dir(folder.path()), ["here"])), b"here\n", "{path:?}");
    }
}

#[test]
fn a_folder_too_long_for_a_path_is_passed_over() {
    let (_peer, mut shim) = launch(&format!("/{}:/bin", "d".repeat(5_000)));
    assert_eq!(success(&run(&mut shim, ["echo", "ran"])), b"ran\n");
}

#[test]
fn a_clear_environment_still_searches_the_programs_own_path() {
    let folder = tempdir().unwrap();
    file(folder.path(), "tool", &script("found"), 0o755);
    let (_peer, mut shim) = launch(text(&folder));
    assert_eq!(success(&run(&mut shim, ["--clear-env", "tool"])), b"found\n");
}
