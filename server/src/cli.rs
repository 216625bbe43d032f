//! The command line, and the exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::operator;

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
    /// Where the state is.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the state is: as a configuration says, or in a directory that `dev` made.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The configuration (TOML)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "state")]
    pub config: Option<PathBuf>,
    /// The state directory of `dev`, the master key in it
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve as --config FILE says
    Serve,
    /// Set a new state up, or bring the schema of an older one up to date, while no server runs
    ///
    /// Needs the master key of --config FILE (`keys init` makes it). With --state DIR the master key is made too.
    Init,
    /// Check --config FILE and the files that it names, and report every mistake; with --deep also the state
    ///
    /// With --state DIR, check the state. Nothing is changed, and it works beside a running server.
    Check {
        /// Also read the whole state, to the last record: this takes as long as the state is large
        #[arg(long)]
        deep: bool,
    },
    /// Copy the state to a new file, beside a running server
    ///
    /// The copy is consistent, and encrypted as the state is: back the master key up apart from it. An existing file is
    /// never overwritten.
    Backup {
        /// The new file; mode 0600
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a backup to work in a state directory without a state; put its master key in place first
    ///
    /// Everything after the backup is undone, revocations too: revoke again what was revoked since.
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// The master key that everything else is encrypted under
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Serve from --state DIR for development: one account, a new token each time, plain HTTP on loopback
    ///
    /// Makes DIR (mode 0700) and the master key in it where there are none. When ready, prints one line of JSON:
    /// {"api": URL, "devbox": URL, "account": ID, "token": TOKEN}
    Dev(DevAddresses),
    /// Operators' commands; they work beside a running server.
    #[command(flatten)]
    Operator(operator::Command),
}

/// What to do about the master key.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make the master key that --config FILE names, mode 0600; an existing one is never overwritten
    Init,
    /// Change the master key, beside a running server and without its pause
    ///
    /// Wraps every key under the new one and puts the new one in the place of the old one's file. Done again, it ends a
    /// rotation that was interrupted. Afterwards back the new key up, and keep the old one for as long as backups from
    /// before. The accounts' own keys stay the same without --rekey.
    Rotate {
        /// The new key's file, made where there is none, mode 0600
        #[arg(long, value_name = "FILE")]
        new_master_key: PathBuf,
        /// Also make new keys for all accounts and seal every value anew, after a master key got into the wrong hands
        ///
        /// Voids join tokens that were not used yet, and retries of writes from before are refused. Done again, it continues.
        #[arg(long)]
        rekey: bool,
    },
}

/// Where `dev` listens.
#[derive(Debug, Clone, Copy, Args)]
pub struct DevAddresses {
    /// The public listener, on a loopback address; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub api: SocketAddr,
    /// The devbox listener; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub devbox: SocketAddr,
    /// Answer /metrics, /healthz and /readyz there, a loopback address; not given: nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
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
    fn the_place_is_taken_before_and_after_the_command() {
        for line in [["s", "serve", "--config", "/c"], ["s", "--config", "/c", "serve"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.place.config.as_deref(), Some(std::path::Path::new("/c")));
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
