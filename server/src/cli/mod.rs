//! The command line: one file a subcommand, and here the options that all of them share.
//!
//! `serve` and `dev` run until a signal stops them. The other subcommands work on the state
//! directly, beside a running server, whose held requests notice within a second. `init` and
//! `restore` need a state that no server uses.
//!
//! Tables are for people, `--json` is for scripts. A value comes from standard input or a prompt,
//! never from the command line, which every process could read.

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
pub(crate) use upkeep::UpkeepError;

const EXAMPLES: &str = "\
Examples:
  Try it: everything in one directory, plain HTTP on a free loopback port
    devbox-secrets-server dev --state ./state

  Serve with a configuration file; run the first two lines once, then back up the key
    devbox-secrets-server keys init --config /etc/devbox-secrets/server.toml
    devbox-secrets-server init --config /etc/devbox-secrets/server.toml
    devbox-secrets-server check --config /etc/devbox-secrets/server.toml
    devbox-secrets-server serve --config /etc/devbox-secrets/server.toml

  Create an account and a token for it, and store a secret (the value comes from standard input)
    devbox-secrets-server --config /etc/devbox-secrets/server.toml account create acme
    devbox-secrets-server --config /etc/devbox-secrets/server.toml token create --account acme
    devbox-secrets-server --config /etc/devbox-secrets/server.toml secret set --account acme DB_PASSWORD < password

  Back up and restore; rotate the master key; rotate the devbox CA
    devbox-secrets-server --config /etc/devbox-secrets/server.toml backup --to /backup/state-1
    devbox-secrets-server --config /etc/devbox-secrets/server.toml restore --from /backup/state-1
    devbox-secrets-server --config /etc/devbox-secrets/server.toml keys rotate --new-master-key /backup/master.key-2
    devbox-secrets-server --config /etc/devbox-secrets/server.toml ca rotate

Files:
  /etc/devbox-secrets/server.toml    the configuration, by convention: docs/configuration.md
  [state] directory                  the database, mode 0700: encrypted values and the devbox CAs
  [state] master_key_file            32 bytes, raw or base64, mode 0600; the database cannot be opened without it:
                                     back it up, apart from the database
  $CREDENTIALS_DIRECTORY/master-key  the same, as a systemd credential

Environment:
  RUST_LOG  error, warn, info, debug or trace: overrides [log] level

Signals:
  SIGTERM, SIGINT  stop; requests in flight have five seconds to finish
  SIGHUP           reload the configuration and the TLS files, and keep connections. Mistakes are logged, and the
                   old configuration stays in force. dev stops, because it has no configuration

Exit codes:
  0  done, or stopped by a signal
  1  failure; the reason is on standard error
  2  wrong command line or configuration; every mistake is on standard error";

/// The exit codes, as `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped by a signal.
    Done = 0,
    /// Failure while running.
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
/// Stores secrets encrypted, serves the Secrets API to people and SDKs, and sealed values to the
/// daemons of registered devboxes.
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
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// State directory of `dev`, with the master key in it
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve with --config FILE until SIGTERM
    Serve,
    /// Create the state, or migrate an older one to the current schema, while no server runs
    ///
    /// Needs the master key of --config FILE, which `keys init` creates. With --state DIR the
    /// master key is created too.
    Init,
    Check(check::CheckArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    /// Create or rotate the master key
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

    /// Opens the state for an operator's command. A state is never set up here: a mistyped path is
    /// an error.
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
