//! The operators' subcommands. They work on the state directly, beside a running server: its held requests notice
//! within a second.
//!
//! Tables for people, `--json` for scripts. A value comes from standard input or a prompt, never from the command line,
//! where every process could read it.

mod account;
mod audit;
mod ca;
mod devbox;
mod output;
mod prompt;
mod secret;
mod token;
mod value;

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use nix::unistd::{Uid, User};
use thiserror::Error;

use crate::registry::{Actor, Refusal, Registry};

/// Operators' commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accounts: create, list, grant or withdraw the devbox capability
    Account(account::AccountArgs),
    /// API tokens of an account: create, list, revoke
    Token(token::TokenArgs),
    /// Secrets of an account: set, list, delete
    Secret(secret::SecretArgs),
    /// Devboxes of an account: register, list, give a new join token, shut down
    Devbox(devbox::DevboxArgs),
    /// The devbox CAs: list, rotate, retire
    Ca(ca::CaArgs),
    /// Show who did what to which name; export or prune old rows
    Audit(audit::AuditArgs),
}

/// Why an operator's command failed.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The registry refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Standard output is closed or full.
    #[error("the result could not be written to standard output")]
    Output(#[source] io::Error),
    /// The export could not be written.
    #[error("{} cannot be written (an existing file is never overwritten): nothing was deleted", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The value could not be read.
    #[error("the value could not be read: give it on standard input, or type it at the prompt")]
    Input(#[source] io::Error),
    /// A signal came at the prompt.
    #[error("interrupted: nothing was changed")]
    Interrupted,
    /// Standard input had no byte.
    #[error(
        "the value is empty, so nothing was changed: check the command that it comes from, or give --allow-empty"
    )]
    Empty,
    /// The value is larger than any secret can be.
    #[error(
        "the value has more than {max} bytes, the most that an environment variable can hold: store it in parts"
    )]
    TooLong {
        /// The most, in bytes.
        max: usize,
    },
    /// Not a time to come.
    #[error(
        "the time of expiry is too far away: choose a shorter span, or none for a token that never expires"
    )]
    Expiry,
}

/// Does what the operator asks.
///
/// # Errors
/// [`OperatorError`].
pub async fn run(command: Command, registry: &Registry) -> Result<(), OperatorError> {
    let user = user_name();
    match command {
        Command::Account(args) => account::run(args, registry, &Actor::Operator(user)).await,
        Command::Token(args) => token::run(args, registry, &Actor::Operator(user)).await,
        Command::Secret(args) => secret::run(args, registry, &user).await,
        Command::Devbox(args) => devbox::run(args, registry, &user).await,
        Command::Ca(args) => ca::run(args, registry, &Actor::Operator(user)).await,
        Command::Audit(args) => audit::run(args, registry, &Actor::Operator(user)).await,
    }
}

/// Who runs the command, for the audit.
#[must_use]
pub fn actor() -> Actor {
    Actor::Operator(user_name())
}

/// For the audit: the user's name, or the number of one without.
fn user_name() -> String {
    let uid = Uid::current();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
