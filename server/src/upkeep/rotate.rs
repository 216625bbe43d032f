//! Changes the master key, beside a running server and without its pause.
//!
//! 1. The new key is put beside the old one's file, as `FILE.next`.
//! 2. Every record under the old key is wrapped under the new one, in one transaction.
//! 3. `FILE.next` takes the place of `FILE`.
//!
//! A server looks for the key of a record that is not under its own in both files, and so does every program that starts:
//! whatever moment this is killed at, nothing is lost, and doing it again ends it.

use std::path::Path;

use super::files::file_error;
use super::{UpkeepError, existing};
use crate::app::open_registry;
use crate::config::StateConfig;
use crate::crypto::MasterKey;
use crate::registry::{Actor, Settings, upkeep_record};
use crate::store::{Action, same_owner};

/// Makes the key in the file `new` (made where there is none) the state's master key; returns how many records were wrapped
/// anew, 0 where an interrupted rotation was ended.
///
/// # Errors
/// [`UpkeepError`]; the state is then under the old key, or is ended by doing it again.
pub async fn rotate(config: &StateConfig, new: &Path, actor: &Actor) -> Result<u64, UpkeepError> {
    let directory = existing(config)?;
    let file = &config.master_key_file;
    let old = MasterKey::load(file).map_err(UpkeepError::MasterKey)?;
    let key = MasterKey::load_or_create(new).map_err(UpkeepError::NewMasterKey)?;
    if key.is(&old) {
        return Err(UpkeepError::SameKey(file.clone()));
    }
    let registry = open_registry(config, Settings::default()).await;
    let registry = registry.map_err(UpkeepError::Start)?;
    // Nobody else rotates or opens the state meanwhile; servers that have it open go on.
    let _lock = directory.lock().map_err(UpkeepError::State)?;
    if registry.is_under(&key).await? {
        MasterKey::promote(file).map_err(UpkeepError::NewMasterKey)?;
        return Ok(0);
    }
    MasterKey::stage(new, file).map_err(UpkeepError::NewMasterKey)?;
    let next = MasterKey::next_file(file);
    // Root may rotate the key of a server that is not root, and has to be able to read it.
    same_owner(&next, file).map_err(|source| file_error(&next, source))?;
    let audit = upkeep_record(actor, Action::KeysRotate, "master key");
    let count = registry.rewrap_all(&key, &audit).await?;
    MasterKey::promote(file).map_err(UpkeepError::NewMasterKey)?;
    Ok(count)
}
