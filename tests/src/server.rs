//! `devbox-secrets-server`: started, killed, started again, and its operators' subcommands.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::{Api, Protocol};
use crate::process::{self, Output, Program};
use crate::{programs, wait};

/// A running control plane.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub program: Program,
    /// The line that it printed when it was ready.
    pub ready: Ready,
    /// Its state directory.
    pub state: PathBuf,
    directory: PathBuf,
}

/// The line of JSON that `dev` prints when it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// URL of the public listener.
    pub api: String,
    /// URL of the devbox listener.
    pub devbox: String,
    /// URL of the admin listener, if it was started with one.
    pub admin: Option<String>,
    /// The development account's id.
    pub account: String,
    /// A token of that account.
    pub token: String,
}

impl Ready {
    fn parse(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).expect("the ready line is JSON");
        let field =
            |name: &str| json[name].as_str().expect("every field of the ready line is text").to_owned();
        let admin = json["admin"].as_str().map(str::to_owned);
        let (api, devbox) = (field("api"), field("devbox"));
        Self { api, devbox, admin, account: field("account"), token: field("token") }
    }

    /// Address of the public listener.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        address(&self.api, "http://")
    }

    /// Address of the devbox listener.
    #[must_use]
    pub fn devbox_address(&self) -> SocketAddr {
        address(&self.devbox, "https://")
    }

    /// Address of the admin listener.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        address(self.admin.as_ref().expect("the server was started with --admin"), "http://")
    }
}

fn address(url: &str, scheme: &str) -> SocketAddr {
    let authority = url.strip_prefix(scheme).unwrap_or_else(|| panic!("{url} starts with {scheme}"));
    authority.parse().unwrap_or_else(|_| panic!("{url} has an address and a port"))
}

/// Starts `dev` on free ports, with its state in `directory/state`, its log in `directory/log/server.log`.
pub async fn dev(directory: &Path) -> Server {
    start(directory, &[], &[]).await
}

/// The same with more arguments.
pub async fn dev_with(directory: &Path, arguments: &[&str]) -> Server {
    start(directory, arguments, &[]).await
}

/// `dev` as a command, for tests of its refusals.
#[must_use]
pub fn dev_command(state: &Path) -> Command {
    let mut command = Command::new(programs::server());
    command.arg("dev").arg("--state").arg(state).env("RUST_LOG", process::MOST_TALKATIVE);
    command
}

async fn start(directory: &Path, arguments: &[&str], environment: &[(&str, &OsStr)]) -> Server {
    let state = directory.join("state");
    let ready_file = directory.join("server.ready");
    let mut command = dev_command(&state);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(File::create(&ready_file).expect("the test's directory is writable"));
    let mut program = Program::start(&mut command, &directory.join("log/server.log"));
    let line = wait::until("the server's ready line", async || ready_line(&mut program, &ready_file)).await;
    Server { program, ready: Ready::parse(&line), state, directory: directory.to_owned() }
}

fn ready_line(program: &mut Program, file: &Path) -> Option<String> {
    let status = program.ended();
    assert!(status.is_none(), "the server ended before it was ready: {status:?}\n{}", program.tail());
    fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))
}

impl Server {
    /// The public API with the development account's token, over HTTP/1.1.
    #[must_use]
    pub fn api(&self) -> Api {
        Api {
            address: self.ready.api_address(),
            token: Some(self.ready.token.clone()),
            protocol: Protocol::Http1,
        }
    }

    /// Starts it again with the same state at the same addresses. It must have ended before.
    pub async fn start_again(&mut self) {
        self.start_again_with(&[]).await;
    }

    /// The same, `later` by its calendar clock: `+2d`, `+9m` (faketime(1)).
    pub async fn start_again_later(&mut self, libfaketime: &Path, later: &str) {
        let clock = [("LD_PRELOAD", libfaketime.as_os_str()), ("FAKETIME", OsStr::new(later))];
        let whole = [clock.as_slice(), &[("FAKETIME_DONT_FAKE_MONOTONIC", OsStr::new("1"))]].concat();
        self.start_again_with(&whole).await;
    }

    async fn start_again_with(&mut self, environment: &[(&str, &OsStr)]) {
        let (api, devbox) = (self.ready.api_address().to_string(), self.ready.devbox_address().to_string());
        let again = start(&self.directory, &["--api", &api, "--devbox", &devbox], environment).await;
        *self = again;
    }

    /// Runs an operator's subcommand on this server's state, with `input` on its standard input.
    pub async fn operator(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(programs::server());
        command.args(arguments).arg("--state").arg(&self.state);
        process::run(command, input).await
    }

    /// Runs an operator's subcommand with `--json`.
    ///
    /// # Panics
    /// If it fails, or prints no JSON.
    pub async fn operator_json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.operator(&arguments, b"").await.success();
        serde_json::from_slice(&output.stdout).expect("--json prints JSON")
    }
}
