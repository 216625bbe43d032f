//! The real server and daemon as children, stopped by their process ids when they go out of scope.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::build::Programs;

const STOP_DEADLINE: Duration = Duration::from_secs(10);
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// A child process that gets SIGTERM, and at last SIGKILL, when dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts `command` in a process group of its own, so that Ctrl-C reaches only the command in the foreground.
    fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let program = command.get_program().to_owned();
        let child = command.process_group(0).spawn();
        child.map(Self).with_context(|| format!("cannot start {}", program.display()))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("process ids fit pid_t"))
    }

    fn stop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `devbox-secrets-server dev`, ready to serve.
#[derive(Debug)]
pub(crate) struct Server {
    _running: Running,
    pub(crate) api: String,
    pub(crate) devbox: String,
    token: String,
}

impl Server {
    /// Starts the server on free loopback ports with its state in `directory`.
    pub(crate) fn start(programs: &Programs, directory: &Path) -> Result<Self> {
        let mut command = Command::new(&programs.server);
        command.arg("dev").arg("--state").arg(directory.join("server"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file(directory, "server.log")?);
        let mut running = Running::start(&mut command)?;
        let stdout = running.0.stdout.take().context("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("the server did not start:\n{}", log_tail(directory, "server.log")))?;
        let field = |name: &str| -> Result<String> {
            Ok(ready[name].as_str().with_context(|| format!("no {name} in the ready line"))?.to_owned())
        };
        Ok(Self { _running: running, api: field("api")?, devbox: field("devbox")?, token: field("token")? })
    }

    /// Stores a secret over the Secrets API.
    pub(crate) fn create_secret(&self, name: &str, value: &str) -> Result<()> {
        self.post("/v1/secrets", &json!({ "name": name, "value": value })).map(drop)
    }

    /// Registers a devbox that gets every secret of the account; returns its join token.
    pub(crate) fn create_devbox(&self, name: &str) -> Result<String> {
        self.register(&json!({ "name": name }))
    }

    /// Registers a devbox that gets just these secrets, under their own names; returns its join token.
    pub(crate) fn create_bound_devbox(&self, name: &str, secrets: &[String]) -> Result<String> {
        let bindings: Value = secrets.iter().map(|secret| (secret.clone(), json!(secret))).collect();
        self.register(&json!({ "name": name, "secrets": bindings }))
    }

    fn register(&self, body: &Value) -> Result<String> {
        let devbox = self.post("/v1/devboxes", body)?;
        Ok(devbox["join_token"].as_str().context("no join_token in the answer")?.to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = ureq::post(format!("{}{path}", self.api))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .send(body.to_string())
            .with_context(|| format!("POST {path}"))?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }
}

/// `devbox-secretsd run`, holding its first secrets.
#[derive(Debug)]
pub(crate) struct Daemon {
    running: Running,
    pub(crate) socket: PathBuf,
    /// From the start of the program to its first secrets.
    pub(crate) ready_after: Duration,
    program: PathBuf,
}

impl Daemon {
    /// Joins the server with `join_token`, which goes in by standard input.
    pub(crate) fn start(
        programs: &Programs,
        directory: &Path,
        server: &Server,
        join_token: &str,
    ) -> Result<Self> {
        let socket = directory.join("launch.sock");
        let mut command = Command::new(&programs.daemon);
        command.args(["run", "--server", &server.devbox, "--join-token-file", "-"]);
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

    pub(crate) fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// What `devbox-secretsd status --json` says.
    pub(crate) fn status(&self) -> Result<Value> {
        let mut command = Command::new(&self.program);
        let admin = self.socket.with_file_name("admin.sock");
        let output = command.args(["status", "--json", "--admin-socket"]).arg(admin).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(serde_json::from_slice(&output.stdout)?)
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
    let ask = || -> std::io::Result<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(admin)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn log_file(directory: &Path, name: &str) -> Result<std::fs::File> {
    Ok(std::fs::File::create(directory.join(name))?)
}

fn log_tail(directory: &Path, name: &str) -> String {
    let log = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
