//! The command line: one file a subcommand, and here the options that all of them share.
//!
//! `serve` and `dev` run until a signal stops them. The other subcommands work on the state directly, beside a running server,
//! whose held requests notice within a second; `init` and `restore` need a state that no server serves.
//!
//! Tables are for people, `--json` is for scripts. A value comes from standard input or a prompt, never from the command line,
//! which every process could read.

mod account;
mod audit;
mod backup;
mod ca;
mod check;
mod dev;
mod devbox;
mod failure;
mod init;
mod keys;
mod output;
mod prompt;
mod restore;
mod secret;
mod serve;
mod signals;
mod token;
mod upkeep;
mod value;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use nix::unistd::{Uid, User};
use tracing::level_filters::LevelFilter;

use crate::app::{open_registry, settings};
use crate::config::{Config, StateConfig};
use crate::logs::{self, LogConfig};
use crate::registry::{Actor, Registry, Settings};

pub use failure::Failure;
pub use upkeep::UpkeepError;

const EXAMPLES: &str = "\
Examples:
  Try it: everything in one directory, plain HTTP on a free loopback port
    devbox-secrets-server dev --state ./state

  Serve, with every setting in a file; the first two lines once, then back the key up
    devbox-secrets-server keys init --config /etc/devbox-secrets/server.toml
    devbox-secrets-server init --config /etc/devbox-secrets/server.toml
    devbox-secrets-server check --config /etc/devbox-secrets/server.toml
    devbox-secrets-server serve --config /etc/devbox-secrets/server.toml

  Make an account and a token for it, store a secret (its value comes from standard input)
    devbox-secrets-server --config /etc/devbox-secrets/server.toml account create acme
    devbox-secrets-server --config /etc/devbox-secrets/server.toml token create --account acme
    devbox-secrets-server --config /etc/devbox-secrets/server.toml secret set --account acme DB_PASSWORD < password

  Back up and restore; change the master key; change the devbox CA
    devbox-secrets-server --config /etc/devbox-secrets/server.toml backup --to /backup/state-1
    devbox-secrets-server --config /etc/devbox-secrets/server.toml restore --from /backup/state-1
    devbox-secrets-server --config /etc/devbox-secrets/server.toml keys rotate --new-master-key /backup/master.key-2
    devbox-secrets-server --config /etc/devbox-secrets/server.toml ca rotate

Files:
  /etc/devbox-secrets/server.toml  the configuration, by convention; sections [state] [api] [devbox] [admin]
                                   [retention] [log]
  DIRECTORY of [state]             the database, mode 0700; encrypted values and the devbox CAs
  master_key_file of [state]       32 bytes, raw or base64, mode 0600; without it the database cannot be opened:
                                   back it up, apart from the database
  $CREDENTIALS_DIRECTORY/master-key  the same, as a systemd credential

Environment:
  RUST_LOG  error, warn, info, debug or trace: goes before the level of [log]

Signals:
  SIGTERM, SIGINT  stop: requests in flight have five seconds to end
  SIGHUP           reload the configuration and the TLS files, connections kept; mistakes are in the log, and the old
                   configuration holds. dev has none, and stops

Exit codes:
  0  done, or stopped by a signal
  1  it failed while running; the reason is on standard error
  2  the command line or the configuration is wrong; every mistake is on standard error";

/// How the program ends. The table in `--help` says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped by a signal.
    Done = 0,
    /// It failed while running.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Devbox Secrets: the control plane
///
/// Stores secrets encrypted, serves the Secrets API to people and SDKs, and sealed values to the daemons of registered
/// devboxes.
#[derive(Debug, Parser)]
#[command(name = "devbox-secrets-server", version, after_long_help = EXAMPLES, after_help = "See --help for examples, files and exit codes.")]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    state: StateArgs,
    #[command(subcommand)]
    command: Command,
}

/// The state to work on: that of a configuration, or a directory that `dev` made.
#[derive(Debug, Clone, Args)]
struct StateArgs {
    /// The configuration (TOML)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// The state directory of `dev`, the master key in it
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as --config FILE says
    Serve,
    /// Set a new state up, or bring the schema of an older one up to date, while no server runs
    ///
    /// Needs the master key of --config FILE (`keys init` makes it). With --state DIR the master key is made too.
    Init,
    Check(check::CheckArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    /// The master key that everything else is encrypted under
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    Dev(dev::DevArgs),
    Account(account::AccountArgs),
    Token(token::TokenArgs),
    Secret(secret::SecretArgs),
    Devbox(devbox::DevboxArgs),
    Ca(ca::CaArgs),
    Audit(audit::AuditArgs),
}

/// Runs one subcommand to its end.
///
/// # Errors
/// [`Failure`], which decides the exit code.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let state = &cli.state;
    match cli.command {
        Command::Serve => serve::run(state).await,
        Command::Init => init::run(state).await,
        Command::Check(args) => check::run(args, state).await,
        Command::Backup(args) => backup::run(&args, state).await,
        Command::Restore(args) => restore::run(&args, state).await,
        Command::Keys(command) => keys::run(command, state).await,
        Command::Dev(args) => dev::run(args, state).await,
        Command::Account(args) => account::run(args, &state.open().await?, &operator()).await,
        Command::Token(args) => token::run(args, &state.open().await?, &operator()).await,
        Command::Secret(args) => secret::run(args, &state.open().await?, &user_name()).await,
        Command::Devbox(args) => devbox::run(args, &state.open().await?, &user_name()).await,
        Command::Ca(args) => ca::run(args, &state.open().await?, &operator()).await,
        Command::Audit(args) => audit::run(args, &state.open().await?, &operator()).await,
    }
}

impl StateArgs {
    /// The configuration of a command that needs one.
    fn config(&self) -> Result<Config, Failure> {
        load(self.config.as_ref().ok_or(Failure::State("--config FILE"))?)
    }

    /// The state of a command that works with a configuration or with a directory of `dev`.
    fn location(&self) -> Result<StateConfig, Failure> {
        match (&self.config, &self.state) {
            (Some(_), _) => Ok(self.config()?.state),
            (None, Some(directory)) => Ok(StateConfig::in_directory(&absolute(directory)?)),
            (None, None) => Err(Failure::State("--config FILE or --state DIR")),
        }
    }

    /// Opens the state for an operator's command. A state is never set up here: a mistyped path is an error.
    async fn open(&self) -> Result<Registry, Failure> {
        logs::start(LogConfig { level: LevelFilter::WARN, ..LogConfig::default() });
        let (state, settings) = match &self.config {
            Some(path) => {
                let config = load(path)?;
                let settings = settings(&config);
                (config.state, settings)
            }
            None => (self.location()?, Settings::default()),
        };
        open_registry(&state, settings).await.map_err(Failure::Start)
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Config::load(path, credentials.as_deref()).map_err(Failure::Config)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::Runtime)
}

/// The user who runs the command, for the audit.
fn operator() -> Actor {
    Actor::Operator(user_name())
}

/// The user's name, or the number of a user without a name.
fn user_name() -> String {
    let uid = Uid::current();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_state_is_named_before_or_after_the_command() {
        for line in [["s", "serve", "--config", "/c"], ["s", "--config", "/c", "serve"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.state.config.as_deref(), Some(std::path::Path::new("/c")));
        }
        assert!(Cli::try_parse_from(["s", "--config", "/c", "--state", "/d", "serve"]).is_err());
    }

    #[test]
    fn help_lists_every_exit_code() {
        for exit in [Exit::Done, Exit::Failed, Exit::Usage] {
            assert!(EXAMPLES.contains(&format!("\n  {}  ", exit as u8)));
        }
    }
}
