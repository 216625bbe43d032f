//! Why the program ends early, and with which exit code.

use std::io;

use thiserror::Error;

use crate::app::StartError;
use crate::cli::Exit;
use crate::config::ConfigError;
use crate::crypto::MasterKeyError;
use crate::harden::HardenError;
use crate::listeners::ListenError;
use crate::operator::OperatorError;
use crate::registry::{OpenError, Refusal};
use crate::store::StateError;
use crate::tls::TlsError;
use crate::upkeep::UpkeepError;

/// Why the program ends early.
#[derive(Debug, Error)]
pub enum Failure {
    /// A limit or a protection of the process could not be set.
    #[error("the process could not be protected")]
    Harden(#[source] HardenError),
    /// Neither `--config` nor `--state`, or not the one that the command needs.
    #[error("this command needs {0}")]
    Place(&'static str),
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
    /// Nobody reads what was asked for.
    #[error("standard output is closed")]
    Output(#[source] io::Error),
    /// An operator's command failed.
    #[error(transparent)]
    Operator(OperatorError),
    /// A command on the whole state failed.
    #[error(transparent)]
    Upkeep(UpkeepError),
}

impl Failure {
    /// How the program ends then.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Upkeep(UpkeepError::State(StateError::Missing { .. })) => Exit::Usage,
            Self::Start(error) if needs_the_operator(error) => Exit::Usage,
            Self::Place(_) | Self::Config(_) | Self::Tls(_) | Self::MasterKey(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Whether no later attempt can succeed without the operator: by exit status 2 the service manager makes none.
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
