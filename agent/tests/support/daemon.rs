//! The real program, in a temporary directory, stopped and waited for when dropped.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use devbox_secretsd::admin::client;
use devbox_secretsd::control_plane::ServerUrl;
use devbox_secretsd::status::{State, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use super::PATIENCE;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_devbox-secretsd");

pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// Joins at `url` with `token` from standard input, and logs everything.
    pub fn start(url: &ServerUrl, token: &str, more: &[&str]) -> Self {
        Self::begin(url, token, &[&["--join-token-file", "-"], more].concat(), None, Stdio::piped())
    }

    /// The same, of which a service manager hears at the socket `notify` (sd_notify(3)).
    pub fn notifying(url: &ServerUrl, token: &str, notify: &Path) -> Self {
        Self::begin(url, token, &["--join-token-file", "-"], Some(notify), Stdio::piped())
    }

    /// As [`Self::start`], with `stderr` for its standard error: [`Self::log`] has nothing.
    pub fn logging_to(stderr: impl Into<Stdio>, url: &ServerUrl, token: &str) -> Self {
        Self::begin(url, token, &["--join-token-file", "-"], None, stderr.into())
    }

    /// With certificate, key and CA from files of these names.
    pub fn with_files(url: &ServerUrl, files: [&Path; 3]) -> Self {
        let [certificate, key, ca] = files.map(|path| path.to_str().unwrap());
        Self::begin(url, "", &["--certificate", certificate, "--key", key, "--ca", ca], None, Stdio::piped())
    }

    /// Joins as [`Self::start`] does, on another platform: `platform` is a command that becomes the program named after its
    /// arguments. The sockets are in `dir`.
    pub fn on(
        platform: Command,
        dir: tempfile::TempDir,
        url: &ServerUrl,
        token: &str,
        more: &[&str],
    ) -> Self {
        let more = [&["--join-token-file", "-"], more].concat();
        Self::spawn(platform, dir, url, token, &more, Stdio::piped())
    }

    fn begin(url: &ServerUrl, token: &str, more: &[&str], notify: Option<&Path>, stderr: Stdio) -> Self {
        // A program that becomes another and changes nothing.
        let mut command = Command::new("env");
        command.envs(notify.map(|socket| ("NOTIFY_SOCKET", socket)));
        Self::spawn(command, tempfile::tempdir().unwrap(), url, token, more, stderr)
    }

    fn spawn(
        mut command: Command,
        dir: tempfile::TempDir,
        url: &ServerUrl,
        token: &str,
        more: &[&str],
        stderr: Stdio,
    ) -> Self {
        let mut child = command
            // An option wins over it.
            .env("RUST_LOG", "trace")
            .args([PROGRAM, "run", "--server", &url.to_string()])
            .arg("--socket")
            .arg(dir.path().join("launch.sock"))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let reader = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let lines = BufReader::new(stderr).lines();
                lines.for_each(|line| *kept.lock().unwrap() += &(line.unwrap() + "\n"));
            })
        });
        Self { child, log, reader, dir }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn launch_socket(&self) -> PathBuf {
        self.dir.path().join("launch.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Waits until the status satisfies `condition`.
    pub async fn until(&self, condition: impl Fn(&Status) -> bool) -> Status {
        let poll = async {
            loop {
                if let Ok(json) = client::status(&self.admin_socket()).await
                    && let Ok(status) = serde_json::from_slice::<Status>(&json)
                    && condition(&status)
                {
                    return status;
                }
                sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, poll).await.expect("the daemon's status never became what the test waits for")
    }

    pub async fn until_ready(&self) -> Status {
        self.until(|status| status.state == State::Ready).await
    }

    /// Waits until the log holds `text`.
    pub async fn until_logged(&self, text: &str) {
        let logged = async {
            while !self.log.lock().unwrap().contains(text) {
                sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, logged).await.expect("the daemon never logs what the test waits for");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Runs a subcommand that asks it, with `input` on its standard input.
    pub async fn operator(&self, arguments: &[&str], input: &str) -> std::process::Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--admin-socket").arg(self.admin_socket());
        let (stdout, stderr) = (Stdio::piped(), Stdio::piped());
        let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().unwrap();
        // One that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end; status and log.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let status = timeout(PATIENCE, ended).await.expect("the daemon does not end");
        self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
        let log = self.log.lock().unwrap().clone();
        (status, log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
