//! `devbox-exec`: one launch.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Output};
use crate::programs;

/// A process's environment.
pub type Environment = BTreeMap<String, Vec<u8>>;

/// A launch in preparation.
#[derive(Debug, Clone)]
pub struct Launch {
    shim: PathBuf,
    socket: PathBuf,
    options: Vec<String>,
    user: Option<u32>,
}

impl Launch {
    /// A launch through the daemon at `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { shim: programs::shim(), socket: socket.to_owned(), options: Vec::new(), user: None }
    }

    /// The same with more options.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// The same as another user and group. `shim` is a copy that this user may execute.
    #[must_use]
    pub fn user(mut self, id: u32, shim: &Path) -> Self {
        self.user = Some(id);
        shim.clone_into(&mut self.shim);
        self
    }

    /// The whole command line.
    #[must_use]
    pub fn command(&self, command: &[&str]) -> Command {
        let mut line = self.command_alone();
        line.arg("--").args(command);
        line
    }

    fn command_alone(&self) -> Command {
        let mut line = Command::new(&self.shim);
        line.arg("--socket").arg(&self.socket).args(&self.options);
        if let Some(id) = self.user {
            line.uid(id).gid(id).current_dir("/");
        }
        line
    }

    /// Runs it to its end.
    pub async fn run(&self, command: &[&str]) -> Output {
        process::run(self.command(command), b"").await
    }

    /// Runs it without a command.
    pub async fn run_alone(&self) -> Output {
        process::run(self.command_alone(), b"").await
    }

    /// The whole environment of the launched process, which inherits nothing.
    ///
    /// # Panics
    /// If the launch fails.
    pub async fn environment(&self) -> Environment {
        let launch = self.clone().options(&["--clear-env"]);
        parse_environment(&launch.run(&["/usr/bin/env", "-0"]).await.success().stdout)
    }
}

/// Reads `NAME=VALUE\0…`.
///
/// # Panics
/// If a string has no `=`, or its name is not UTF-8.
#[must_use]
pub fn parse_environment(bytes: &[u8]) -> Environment {
    let strings = bytes.split(|byte| *byte == 0).filter(|string| !string.is_empty());
    strings.map(parse_variable).collect()
}

fn parse_variable(string: &[u8]) -> (String, Vec<u8>) {
    let equals = string.iter().position(|byte| *byte == b'=').expect("a variable has an equals sign");
    let name = std::str::from_utf8(&string[..equals]).expect("a name is UTF-8");
    (name.to_owned(), string[equals + 1..].to_vec())
}
