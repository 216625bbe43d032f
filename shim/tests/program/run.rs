//! Runs the program and checks its result.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::build::released;

/// The program with its socket, and nothing inherited but a `PATH`.
pub(crate) fn shim(socket: &Path) -> Command {
    program(released(), socket)
}

pub(crate) fn program(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command.arg("--socket").arg(socket);
    command
}

/// The program under a shell that changes a limit first: `limit` is `-l 0` or alike.
pub(crate) fn limited_shim(limit: &str, socket: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]).arg(released());
    command.arg("--socket").arg(socket);
    command
}

/// Runs `command` with these arguments more.
pub(crate) fn run<A: AsRef<OsStr>>(command: &mut Command, arguments: impl IntoIterator<Item = A>) -> Output {
    command.args(arguments).output().unwrap()
}

/// The output of a program that must succeed.
pub(crate) fn success(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{}: {}", output.status, message(output));
    assert_eq!(message(output), "");
    &output.stdout
}

/// The line of a program that must fail with this status, having run nothing.
pub(crate) fn failure(output: &Output, status: i32) -> String {
    let line = message(output);
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert_eq!(output.stdout, b"", "nothing ran");
    assert!(line.starts_with("devbox-exec: ") && line.ends_with('\n'), "{line:?}");
    assert_eq!(line.lines().count(), 1, "{line:?}");
    line
}

pub(crate) fn message(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The strings of `env -0`.
pub(crate) fn environment(printed: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(printed).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Writes a file that is to be run. Another process does it: a test beside this one may start a program while the file is
/// open here, and then nobody can run it (ETXTBSY) until that program has closed what it inherited.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) {
    let script = "printf %s \"$1\" > \"$2\" && chmod \"$3\" \"$2\"";
    let status =
        Command::new("/bin/sh").args(["-c", script, "sh", text]).arg(path).arg(format!("{mode:o}")).status();
    assert!(status.unwrap().success());
}
