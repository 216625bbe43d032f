//! The daemon of one devbox.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use serde_json::Value;

use super::Server;
use super::running::{Running, log_file, log_tail};
use crate::build::Programs;

const READY_DEADLINE: Duration = Duration::from_secs(30);

/// `devbox-secretsd run`, holding its first secrets.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    /// Its launch socket.
    pub socket: PathBuf,
    /// From the start of the program to its first secrets.
    pub ready_after: Duration,
    program: PathBuf,
}

impl Daemon {
    /// Joins the server with `join_token`, which goes in by standard input. The daemon's own user may have everything.
    pub fn start(programs: &Programs, directory: &Path, server: &Server, join_token: &str) -> Result<Self> {
        let mut command = Command::new(&programs.daemon);
        command.arg("run");
        Self::join(programs, directory, server, join_token, command)
    }

    /// The same, with `configuration` as its file.
    pub fn start_with(
        programs: &Programs,
        directory: &Path,
        server: &Server,
        join_token: &str,
        configuration: &str,
    ) -> Result<Self> {
        let file = directory.join("agent.toml");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(&programs.daemon);
        command.arg("run").arg("--config").arg(file);
        Self::join(programs, directory, server, join_token, command)
    }

    fn join(
        programs: &Programs,
        directory: &Path,
        server: &Server,
        join_token: &str,
        mut command: Command,
    ) -> Result<Self> {
        let socket = directory.join("launch.sock");
        command.args(["--server", &server.devbox, "--join-token-file", "-"]);
        command.arg("--socket").arg(&socket);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log_file(directory, "daemon.log")?);
        let started = Instant::now();
        let mut running = Running::start(&mut command)?;
        let mut stdin = running.0.stdin.take().context("the daemon has no standard input")?;
        stdin.write_all(join_token.as_bytes())?;
        drop(stdin);
        let program = programs.daemon.clone();
        let mut daemon = Self { running, socket, ready_after: Duration::ZERO, program };
        daemon
            .wait_until_ready(started)
            .with_context(|| format!("the daemon did not start:\n{}", log_tail(directory, "daemon.log")))?;
        Ok(daemon)
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// The output of `devbox-secretsd status --json`.
    pub fn status(&self) -> Result<Value> {
        let mut command = Command::new(&self.program);
        let admin = self.socket.with_file_name("admin.sock");
        let output = command.args(["status", "--json", "--admin-socket"]).arg(admin).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A sample of the metrics, 0 if there is none yet. `sample`: its name without the daemon's prefix, with its labels.
    pub fn metric(&self, sample: &str) -> Result<u64> {
        let metrics = ask(&self.socket.with_file_name("admin.sock"), "/metrics")?;
        super::sample(&metrics, &format!("devbox_secretsd_{sample}"))
    }

    /// The revision that it holds, from the admin socket itself: cheaper than [`Self::status`].
    pub fn revision(&self) -> Result<Option<u64>> {
        let answer = ask(&self.socket.with_file_name("admin.sock"), "/status")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the daemon's answer has no body")?;
        Ok(serde_json::from_str::<Value>(body)?["revision"].as_u64())
    }

    /// Asks the admin socket itself, not `status`: starting a program for each look would blur the figure.
    fn wait_until_ready(&mut self, started: Instant) -> Result<()> {
        let admin = self.socket.with_file_name("admin.sock");
        while started.elapsed() < READY_DEADLINE {
            if let Some(status) = self.running.0.try_wait()? {
                bail!("it ended with {status}");
            }
            if is_healthy(&admin) {
                self.ready_after = started.elapsed();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("it had no secrets after {} s", READY_DEADLINE.as_secs())
    }
}

fn is_healthy(admin: &Path) -> bool {
    ask(admin, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A whole answer of the admin socket.
fn ask(admin: &Path, path: &str) -> std::io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(admin)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
