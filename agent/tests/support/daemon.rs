//! The real program in a temporary directory, and its status as the type that it serializes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use devbox_secrets_tests::daemon::{self, Setup};
use devbox_secrets_tests::process::{self, Output};
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::directory;
use devbox_secretsd::control_plane::ServerUrl;
use devbox_secretsd::local_api::admin::client;
use devbox_secretsd::status::{State, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use super::control_plane::ControlPlane;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_devbox-secretsd");

/// Stopped and waited for when dropped, before its directory goes.
pub struct Daemon {
    daemon: daemon::Daemon,
    _directory: TempDir,
}

impl Daemon {
    /// Joins with a token from standard input, and logs everything.
    pub fn start(plane: &ControlPlane, options: &[&str]) -> Self {
        let directory = directory();
        let daemon = joining(&directory, plane, &plane.url()).options(options).spawn();
        Self { daemon, _directory: directory }
    }

    /// The same with a service manager that listens at the socket `notify` (sd_notify(3)).
    pub fn notifying(plane: &ControlPlane, notify: &Path) -> Self {
        let directory = directory();
        let daemon = joining(&directory, plane, &plane.url()).spawn_by(|mut command| {
            command.env("NOTIFY_SOCKET", notify);
            command
        });
        Self { daemon, _directory: directory }
    }

    /// As [`Self::start`], with `stderr` for its standard error: [`Self::log`] is empty.
    pub fn logging_to(stderr: impl Into<Stdio>, plane: &ControlPlane) -> Self {
        let directory = directory();
        let daemon = joining(&directory, plane, &plane.url()).spawn_logging_to(stderr.into());
        Self { daemon, _directory: directory }
    }

    /// With certificate, key and CA from these files.
    pub fn with_files(url: &ServerUrl, files: [PathBuf; 3]) -> Self {
        let directory = directory();
        let daemon = Setup::new(directory.path(), &url.to_string(), "").certificate(files).spawn();
        Self { daemon, _directory: directory }
    }

    /// Joins at `url` as [`Self::start`] does, on another platform: `platform` is a command that
    /// becomes the program named after its arguments. The daemon's files are in `directory`, and
    /// its owner's.
    pub fn on(
        platform: Command,
        directory: TempDir,
        plane: &ControlPlane,
        url: &ServerUrl,
        options: &[&str],
    ) -> Self {
        let mut setup = joining(&directory, plane, url).options(options);
        let owner = directory.path().metadata().unwrap().uid();
        if owner != geteuid().as_raw() {
            setup = setup.user(owner, Path::new(PROGRAM));
        }
        let daemon = setup.spawn_by(|command| process::becoming(platform, &command));
        Self { daemon, _directory: directory }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.daemon.program.pid().try_into().unwrap())
    }

    pub fn launch_socket(&self) -> PathBuf {
        self.daemon.socket.clone()
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.daemon.admin_socket.clone()
    }

    /// Waits until the status satisfies `condition`.
    pub async fn until(&self, condition: impl Fn(&Status) -> bool) -> Status {
        wait::until("the daemon's status", async || {
            let json = client::status(&self.admin_socket()).await.ok()?;
            serde_json::from_slice(&json).ok().filter(&condition)
        })
        .await
    }

    pub async fn until_ready(&self) -> Status {
        self.until(|status| status.state == State::Ready).await
    }

    /// Waits until the log holds `text`.
    pub async fn until_logged(&self, text: &str) {
        wait::until(text, async || self.log().contains(text).then_some(())).await;
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.daemon.program.log()
    }

    /// Runs a subcommand that asks it, with `input` on its standard input.
    pub async fn operator(&self, arguments: &[&str], input: &str) -> Output {
        self.daemon.operator(arguments[0], &arguments[1..], input).await
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end; status and log.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let status = self.daemon.program.end().await;
        (status, self.log())
    }
}

fn joining(directory: &TempDir, plane: &ControlPlane, url: &ServerUrl) -> Setup {
    Setup::new(directory.path(), &url.to_string(), &plane.token()).token_on_stdin()
}
