//! `devbox-secretsd`: started with a join token, ready when its admin socket says so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client;
use crate::process::{self, Output, Program};
use crate::{programs, wait};

/// The arguments and files of a daemon. Its files are in one directory.
#[derive(Debug, Clone)]
pub struct Setup {
    directory: PathBuf,
    server: String,
    join_token: String,
    is_token_typed: bool,
    certificate: Option<[PathBuf; 3]>,
    config: Option<String>,
    options: Vec<String>,
    user: Option<(u32, PathBuf)>,
}

impl Setup {
    /// A daemon without a configuration file, its sockets in `directory/run`, its log in `directory/log/daemon.log`.
    #[must_use]
    pub fn new(directory: &Path, server: &str, join_token: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            server: server.to_owned(),
            join_token: join_token.to_owned(),
            is_token_typed: false,
            certificate: None,
            config: None,
            options: Vec::new(),
            user: None,
        }
    }

    /// The same with the join token from standard input instead of a file.
    #[must_use]
    pub fn token_on_stdin(mut self) -> Self {
        self.is_token_typed = true;
        self
    }

    /// The same with more options.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// The same with certificate, key and CA from these files instead of a join token.
    #[must_use]
    pub fn certificate(mut self, files: [PathBuf; 3]) -> Self {
        self.certificate = Some(files);
        self
    }

    /// The same with a configuration file of this text.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// The same as another user and group. `program` is a copy that this user may execute.
    #[must_use]
    pub fn user(mut self, id: u32, program: &Path) -> Self {
        self.user = Some((id, program.to_owned()));
        self
    }

    /// The same with another server.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        url.clone_into(&mut self.server);
        self
    }

    /// The launch socket that it will have.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/launch.sock")
    }

    /// The admin socket that it will have.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.directory.join("run/admin.sock")
    }

    /// The command that starts it.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn command(&self) -> Command {
        fs::create_dir_all(self.directory.join("run")).expect("the test's directory is writable");
        self.hand_over(&self.directory.join("run"));
        let mut command = self.program();
        command.arg("run").arg("--server").arg(&self.server);
        match &self.certificate {
            Some([certificate, key, ca]) => {
                command.arg("--certificate").arg(certificate).arg("--key").arg(key).arg("--ca").arg(ca)
            }
            None if self.is_token_typed => command.args(["--join-token-file", "-"]),
            None => command.arg("--join-token-file").arg(self.write("join-token", &self.join_token)),
        };
        command.arg("--socket").arg(self.socket()).arg("--admin-socket").arg(self.admin_socket());
        if let Some(config) = &self.config {
            command.arg("--config").arg(self.write("agent.toml", config));
        }
        command.args(&self.options);
        command.env("RUST_LOG", process::MOST_TALKATIVE).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn program(&self) -> Command {
        let Some((id, program)) = &self.user else { return Command::new(programs::daemon()) };
        let mut command = Command::new(program);
        command.uid(*id).gid(*id);
        command
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).expect("the test's directory is writable");
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .expect("a file of ours can be made private");
        self.hand_over(&path);
        path
    }

    fn hand_over(&self, path: &Path) {
        if let Some((id, _)) = self.user {
            chown(path, Some(id), Some(id)).expect("root may give files away");
        }
    }

    /// Starts it, and does not wait.
    #[must_use]
    pub fn spawn(&self) -> Daemon {
        self.spawn_by(|command| command)
    }

    /// The same by another command, made from its own: in another namespace, with another clock.
    #[must_use]
    pub fn spawn_by(&self, change: impl FnOnce(Command) -> Command) -> Daemon {
        let mut command = change(self.command());
        let log = self.directory.join("log/daemon.log");
        self.running(Program::start(self.streams(&mut command), &log))
    }

    /// Starts it with `stderr` for its standard error, and does not wait.
    #[must_use]
    pub fn spawn_logging_to(&self, stderr: Stdio) -> Daemon {
        self.running(Program::start_logging_to(self.streams(&mut self.command()), stderr))
    }

    /// A changed command has lost the streams of its own.
    fn streams<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let stdin = if self.is_token_typed { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::null())
    }

    fn running(&self, mut program: Program) -> Daemon {
        if self.is_token_typed {
            program.give(&self.join_token);
        }
        Daemon { program, socket: self.socket(), admin_socket: self.admin_socket() }
    }

    /// Starts it and waits until it has its secrets.
    pub async fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.ready().await;
        daemon
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub program: Program,
    /// Its launch socket.
    pub socket: PathBuf,
    /// Its admin socket.
    pub admin_socket: PathBuf,
}

impl Daemon {
    /// Waits until it has its secrets.
    ///
    /// # Panics
    /// If it ends instead.
    pub async fn ready(&mut self) {
        wait::until("the daemon to be ready", async || {
            let status = self.program.ended();
            assert!(status.is_none(), "the daemon ended: {status:?}\n{}", self.program.tail());
            let answer = client::get_unix(&self.admin_socket, "/healthz").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The answer to `/status` on the admin socket.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn status(&self) -> Value {
        client::get_unix(&self.admin_socket, "/status")
            .await
            .expect("the admin socket answers")
            .expect(200)
            .json()
    }

    /// Waits until `/status` is as wanted, and returns it.
    pub async fn status_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, async || Some(self.status().await).filter(&wanted)).await
    }

    /// Runs the `status` subcommand.
    pub async fn status_command(&self, arguments: &[&str]) -> Output {
        self.operator("status", arguments, "").await
    }

    /// Runs a subcommand that asks it, with `input` on its standard input.
    pub async fn operator(&self, subcommand: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(programs::daemon());
        command.arg(subcommand).arg("--admin-socket").arg(&self.admin_socket).args(arguments);
        process::run(command, input.as_bytes()).await
    }
}
