//! A consistent copy of the state, made while others read and write. It is encrypted as the state is: the master key is
//! backed up apart from it.

use std::path::Path;

use super::files::Draft;
use super::{UpkeepError, existing};
use crate::app::open_registry;
use crate::config::StateConfig;
use crate::registry::{Actor, Settings};
use crate::store::{Action, Depth, SqliteStore, examine};

/// Copies the state to the new file `to` (mode 0600), which is there whole or not at all, on disk.
///
/// # Errors
/// [`UpkeepError::FileExists`]; others where the state does not open or the copy cannot be made.
pub async fn backup(config: &StateConfig, to: &Path, actor: &Actor) -> Result<(), UpkeepError> {
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
    examine(draft.path(), Depth::Quick).await.map_err(UpkeepError::database(draft.path().to_owned()))?;
    draft.keep()?;
    registry.note(actor, Action::StateBackup, &to.display().to_string()).await?;
    store.close().await.map_err(failed)
}
