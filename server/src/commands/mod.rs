//! What each subcommand does, by its part: `serving`, `state`, and the operators' here.

mod failure;
mod serving;
mod signals;
mod state;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub use failure::Failure;

use crate::app::{open_registry, settings};
use crate::cli::{Cli, Command, KeysCommand, Place};
use crate::config::{Config, StateConfig};
use crate::logs::{self, LogConfig};
use crate::operator;
use crate::registry::Settings;

/// Does what was asked.
///
/// # Errors
/// [`Failure`].
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve => serving::serve(&cli.place).await,
        Command::Init => state::init(&cli.place).await,
        Command::Check { deep } => state::check(&cli.place, deep).await,
        Command::Backup { to } => state::backup(&cli.place, &to).await,
        Command::Restore { from } => state::restore(&cli.place, &from).await,
        Command::Keys(KeysCommand::Init) => state::make_master_key(&cli.place),
        Command::Keys(KeysCommand::Rotate { new_master_key, rekey }) => {
            state::rotate(&cli.place, &new_master_key, rekey).await
        }
        Command::Dev(addresses) => serving::dev(&cli.place, addresses).await,
        Command::Operator(command) => operate(&cli.place, command).await,
    }
}

async fn operate(place: &Place, command: operator::Command) -> Result<(), Failure> {
    logs::start(LogConfig { level: tracing::level_filters::LevelFilter::WARN, ..LogConfig::default() });
    let (state, settings) = match (&place.config, &place.state) {
        (Some(_), _) => {
            let config = load(place)?;
            let settings = settings(&config);
            (config.state, settings)
        }
        (None, Some(directory)) => (StateConfig::in_directory(&absolute(directory)?), Settings::default()),
        (None, None) => return Err(Failure::Place("--config FILE or --state DIR")),
    };
    // It works on a state and never begins one: a mistyped path is a mistake.
    let registry = open_registry(&state, settings).await.map_err(Failure::Start)?;
    operator::run(command, &registry).await.map_err(Failure::Operator)
}

fn load(place: &Place) -> Result<Config, Failure> {
    load_file(place.config.as_ref().ok_or(Failure::Place("--config FILE"))?)
}

fn load_file(path: &Path) -> Result<Config, Failure> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Config::load(path, credentials.as_deref()).map_err(Failure::Config)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::Runtime)
}

/// Writes past the buffer of standard output, which would keep the token.
fn print_line(line: &[u8]) -> Result<(), Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?;
    File::from(stdout).write_all(line).map_err(Failure::Output)
}
