//! `cargo xtask demo`: one secret on its whole way, for real.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use xtask::build::{self, Profile, Programs};
use xtask::programs::{Daemon, Server};

const SECRET: &str = "DEMO_SECRET";

/// The default command. It describes the secret without showing the value.
const SCRIPT: &str = r#"printf 'DEMO_SECRET: %s bytes, SHA-256 %s\n' "${#DEMO_SECRET}" "$(printf %s "$DEMO_SECRET" | sha256sum | cut -d ' ' -f 1)""#;

/// Runs the demo; the exit code is the command's.
pub(crate) fn run(command: Vec<OsString>) -> Result<ExitCode> {
    println!(
        "Building devbox-secrets-server, devbox-secretsd and devbox-exec: some minutes the first time, about 330 crates"
    );
    let programs = build::programs(Profile::Dev)?;
    // A handler, even one that only takes note, keeps this process alive to stop what it started; the command in the
    // foreground gets its own signal.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let directory = tempfile::Builder::new().prefix("devbox-secrets-demo-").tempdir()?;
    let status = travel(&programs, directory.path(), &command)?;
    directory.close().context("the demo's directory could not be removed")?;
    step("Stopped the daemon and the server, removed their directory", None);
    Ok(exit_code(status))
}

/// The secret's way from the API into the command.
fn travel(programs: &Programs, directory: &Path, command: &[OsString]) -> Result<ExitStatus> {
    let started = Instant::now();
    let server = Server::start(programs, directory)?;
    step(&format!("Server up: Secrets API {}, devboxes {}", server.api, server.devbox), Some(started));

    let value = random_value()?;
    let stored = Instant::now();
    server.create_secret(SECRET, &value)?;
    step(&format!("Stored {SECRET}: {} bytes, SHA-256 {}", value.len(), sha256(&value)?), Some(stored));

    let registered = Instant::now();
    let join_token = server.create_devbox("demo")?;
    step("Registered a devbox; its one-time join token pins the devbox CA", Some(registered));

    let daemon = Daemon::start(programs, directory, &server, &join_token)?;
    show_daemon(&daemon)?;

    let launched = Instant::now();
    let status = launch(programs, &daemon, command)?;
    step(&format!("devbox-exec became the command, which ended with {status}"), Some(launched));
    Ok(status)
}

fn show_daemon(daemon: &Daemon) -> Result<()> {
    let status = daemon.status()?;
    let milliseconds = |name: &str| status["timings"][name].as_f64().unwrap_or_default();
    println!("[{:>9}] Daemon ready after program start, of which", shown(daemon.ready_after));
    println!("{:>11}   enrol {:.1} ms: key, CSR, mTLS certificate", "", milliseconds("enroll_ms"));
    println!("{:>11}   fetch {:.1} ms: sealed bundle, opened in locked memory", "", milliseconds("fetch_ms"));
    let text = |pointer: &str| status.pointer(pointer).map(ToString::to_string).unwrap_or_default();
    println!(
        "{:>11}   memory backing {}, {} bytes locked, revision {}",
        "",
        text("/memory/backing").trim_matches('"'),
        text("/memory/bytes_locked"),
        text("/revision"),
    );
    Ok(())
}

fn launch(programs: &Programs, daemon: &Daemon, command: &[OsString]) -> Result<ExitStatus> {
    let mut shim = Command::new(&programs.shim);
    shim.arg("--socket").arg(&daemon.socket).arg("--");
    if command.is_empty() {
        shim.args(["sh", "-c", SCRIPT]);
    } else {
        shim.args(command);
    }
    println!(
        "{:>11} Running {}",
        "",
        if command.is_empty() { "a script that looks at it:" } else { "COMMAND:" }
    );
    shim.status().context("cannot start devbox-exec")
}

fn step(what: &str, since: Option<Instant>) {
    println!("[{:>9}] {what}", since.map(|since| shown(since.elapsed())).unwrap_or_default());
}

fn shown(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// 32 hexadecimal digits from the kernel.
fn random_value() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn sha256(value: &str) -> Result<String> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("sha256sum has no standard input")?.write_all(value.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).chars().take(64).collect())
}

/// The command's own status; 128 + N for signal N, as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
