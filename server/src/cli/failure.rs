//! Why the program ends early, and with which exit code.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{Exit, UpkeepError};
use crate::app::StartError;
use crate::config::ConfigError;
use crate::crypto::MasterKeyError;
use crate::harden::HardenError;
use crate::listeners::ListenError;
use crate::logs::chain;
use crate::pki::tls::TlsError;
use crate::registry::{OpenError, Refusal};
use crate::store::StateError;

/// Why the program ends early.
#[derive(Debug, Error)]
pub enum Failure {
    /// A limit or a protection of the process could not be set.
    #[error("the process could not be protected")]
    Harden(#[source] HardenError),
    /// Neither `--config` nor `--state`, or not the one that the command needs.
    #[error("this command needs {0}")]
    State(&'static str),
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(ConfigError),
    /// The public listener's certificate or key cannot be used.
    #[error("the configuration names files that cannot be used")]
    Tls(#[source] TlsError),
    /// The master key cannot be used.
    #[error("the configuration names a master key that cannot be used")]
    MasterKey(#[source] MasterKeyError),
    /// `keys init` made none.
    #[error("no master key was made")]
    NoMasterKeyMade(#[source] MasterKeyError),
    /// The kernel refused what every program needs.
    #[error("the runtime could not be started")]
    Runtime(#[source] io::Error),
    /// The state does not open, or a listener is not to be had.
    #[error("the server does not start")]
    Start(#[source] StartError),
    /// The account that `dev` announces.
    #[error("the development account could not be made")]
    Account(#[source] Refusal),
    /// Standard output is closed or full.
    #[error("the result could not be written to standard output")]
    Output(#[source] io::Error),
    /// The registry refuses an operator's command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An export of the audit could not be written.
    #[error("{} cannot be written (an existing file is never overwritten): nothing was deleted", path.display())]
    Export {
        /// The new file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A value could not be read.
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
    /// A value is larger than any secret can be.
    #[error(
        "the value has more than {max} bytes, the most that an environment variable can hold: store it in parts"
    )]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// A token's expiry cannot be written as a time.
    #[error(
        "the expiry is too far away: choose a shorter lifetime, or omit it for a token that never expires"
    )]
    Expiry,
    /// A command on the whole state failed.
    #[error(transparent)]
    Upkeep(#[from] UpkeepError),
}

impl Failure {
    /// The text for standard error: mistakes of the configuration one a line, any other failure
    /// with its causes.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Config(ConfigError::Mistakes(mistakes)) => mistakes.to_string(),
            failure => chain(failure),
        }
    }

    /// How the program ends then.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Upkeep(UpkeepError::State(StateError::Missing { .. })) => Exit::Usage,
            Self::Start(error) if needs_the_operator(error) => Exit::Usage,
            Self::State(_) | Self::Config(_) | Self::Tls(_) | Self::MasterKey(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Whether no later attempt can succeed without the operator: by exit status 2 the service manager
/// makes none.
fn needs_the_operator(error: &StartError) -> bool {
    matches!(
        error,
        StartError::State(StateError::Missing { .. })
            | StartError::MasterKey(_)
            | StartError::Listen(ListenError::Tls { listener: "api", .. })
            | StartError::Open(
                OpenError::MasterKey(_) | OpenError::OtherMasterKey { .. } | OpenError::LostMasterKey { .. }
            )
    )
}
