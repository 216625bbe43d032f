//! `backup`: a consistent copy of the state, made while others read and write. The copy is
//! encrypted like the state, and does not contain the master key.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::print_line;
use super::upkeep::{Draft, UpkeepError, existing};
use super::{Failure, StateArgs, operator};
use crate::app::open_registry;
use crate::config::StateConfig;
use crate::registry::{Actor, Settings};
use crate::store::Action;
use crate::store::sqlite::{Depth, SqliteStore, examine};

/// Back up the state to a new file, without stopping the server
///
/// The copy is consistent, and encrypted like the state: back up the master key apart from it.
/// Never overwrites a file.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The new file, mode 0600
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(super) async fn run(args: &BackupArgs, state: &StateArgs) -> Result<(), Failure> {
    let to = &args.to;
    backup(&state.location()?, to, &operator()).await?;
    print_line(
        format!("wrote {}: the master key is not in it, back that up elsewhere\n", to.display()).as_bytes(),
    )
}

/// Copies the state to the new file `to` (mode 0600), which is on disk completely or not at all.
///
/// # Errors
/// [`UpkeepError::FileExists`]; others if the state does not open or the copy fails.
async fn backup(config: &StateConfig, to: &Path, actor: &Actor) -> Result<(), UpkeepError> {
    if to.exists() {
        return Err(UpkeepError::FileExists(to.to_owned()));
    }
    let directory = existing(config)?;
    let registry = open_registry(config, Settings::default()).await;
    let registry = registry.map_err(UpkeepError::Start)?;
    let failed = UpkeepError::database(directory.database());
    let store = SqliteStore::open(&directory).await.map_err(&failed)?;
    let draft = Draft::new(to)?;
    store.copy_to(draft.path()).await.map_err(&failed)?;
    // The copy is read back before it gets the name of a backup.
    examine(draft.path(), Depth::Quick).await.map_err(UpkeepError::database(draft.path().to_owned()))?;
    draft.keep()?;
    // The row comes last, so that the audit shows no backup that failed.
    registry.note(actor, Action::StateBackup, &to.display().to_string()).await?;
    store.close().await.map_err(failed)
}
