//! `keys`: creates the master key, and rotates it without stopping the server. A rotation has three
//! steps:
//!
//! 1. The new key is written beside the old one's file, as `FILE.next`.
//! 2. Every record under the old key is wrapped under the new one, in one transaction.
//! 3. `FILE.next` replaces `FILE`.
//!
//! If a record is not under the server's own key, the server looks for its key in both files, and
//! so does every program at its start. So a rotation that is killed at any moment loses no key, and
//! running it again completes it.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::output::print_line;
use super::upkeep::{UpkeepError, existing, file_error};
use super::{Failure, StateArgs, absolute, operator};
use crate::app::open_registry;
use crate::config::StateConfig;
use crate::crypto::MasterKey;
use crate::registry::{Actor, Registry, Settings, upkeep_record};
use crate::store::sqlite::same_owner;
use crate::store::{Action, Location as _};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create the master key file of --config FILE, mode 0600; never overwrites one
    Init,
    /// Rotate the master key without stopping the server
    ///
    /// Wraps every key under the new one, which then replaces the old one's file. Running it again
    /// completes an interrupted rotation. Afterwards back up the new key, and keep the old key as
    /// long as you keep older backups. Without --rekey the accounts' own keys stay the same.
    Rotate {
        /// File of the new key, created if it does not exist, mode 0600
        #[arg(long, value_name = "FILE")]
        new_master_key: PathBuf,
        /// Also give all accounts new keys and seal every value under them, if a master key may
        /// have leaked
        ///
        /// Unused join tokens become void, and retries of earlier writes are refused. Running it
        /// again continues.
        #[arg(long)]
        rekey: bool,
    },
}

pub(super) async fn run(command: KeysCommand, state: &StateArgs) -> Result<(), Failure> {
    match command {
        KeysCommand::Init => make_master_key(state),
        KeysCommand::Rotate { new_master_key, rekey } => run_rotate(state, &new_master_key, rekey).await,
    }
}

fn make_master_key(state: &StateArgs) -> Result<(), Failure> {
    let config = state.config()?;
    MasterKey::create(&config.state.master_key_file).map_err(Failure::NoMasterKeyMade)?;
    print_line(format!("made {}: back it up\n", config.state.master_key_file.display()).as_bytes())
}

async fn run_rotate(state: &StateArgs, new: &Path, rekey: bool) -> Result<(), Failure> {
    let location = state.location()?;
    let new = absolute(new)?;
    let actor = operator();
    let done = if rekey {
        let (accounts, values) = rotate_and_rekey(&location, &new, &actor).await?;
        format!("made {accounts} account keys and sealed {values} values anew")
    } else {
        let count = rotate(&location, &new, &actor).await?;
        format!("wrapped {count} records anew")
    };
    let line = format!(
        "{done}: back {} up and remove it there; keep the old key as long as backups from before\n",
        new.display()
    );
    print_line(line.as_bytes())
}

/// Makes the key in the file `new` (made if it is absent) the state's master key; returns how many
/// records were wrapped anew, 0 if it completed an interrupted rotation.
///
/// # Errors
/// [`UpkeepError`]; the state is then under the old key, or running it again completes the
/// rotation.
async fn rotate(config: &StateConfig, new: &Path, actor: &Actor) -> Result<u64, UpkeepError> {
    let directory = existing(config)?;
    let file = &config.master_key_file;
    let old = MasterKey::load(file).map_err(UpkeepError::MasterKey)?;
    let key = MasterKey::load_or_create(new).map_err(UpkeepError::NewMasterKey)?;
    let registry = open_registry(config, Settings::default()).await;
    let registry = registry.map_err(UpkeepError::Start)?;
    // No other program rotates or opens the state meanwhile; servers that have it open continue.
    let _lock = directory.lock().map_err(UpkeepError::State)?;
    let ended_one = end_interrupted(&registry, &old, file).await?;
    if registry.is_under(&key).await? {
        return if ended_one { Ok(0) } else { Err(UpkeepError::SameKey(file.clone())) };
    }
    // The new key is on disk beside the old one before any record is under it. If this process is
    // killed, the next run or server start finds the right key in one of the two files.
    MasterKey::stage(new, file).map_err(UpkeepError::NewMasterKey)?;
    let next = MasterKey::next_file(file);
    // Root may rotate the key of a server that is not root, and has to be able to read it.
    same_owner(&next, file).map_err(|source| file_error(&next, source))?;
    let audit = upkeep_record(actor, Action::KeysRotate, "master key");
    let count = registry.rewrap_all(&key, &audit).await?;
    // All records are committed under the new key, so it can replace the old one.
    MasterKey::promote(file).map_err(UpkeepError::NewMasterKey)?;
    Ok(count)
}

/// As [`rotate`], and then gives every account a new key, under which its values are sealed again,
/// so that a thief of the old master key and the database cannot open later values. Running it
/// again, also with the same new key, completes an interrupted run. Returns how many accounts and
/// values that were.
///
/// # Errors
/// As [`rotate`].
async fn rotate_and_rekey(
    config: &StateConfig,
    new: &Path,
    actor: &Actor,
) -> Result<(usize, u64), UpkeepError> {
    match rotate(config, new, actor).await {
        Ok(_) | Err(UpkeepError::SameKey(_)) => {}
        Err(error) => return Err(error),
    }
    let registry = open_registry(config, Settings::default()).await.map_err(UpkeepError::Start)?;
    Ok(registry.rekey_all(actor).await?)
}

/// Completes a rotation that was interrupted after its records were wrapped: the only copy of their
/// key may be `FILE.next`, which another rotation would overwrite. Returns whether there was one.
async fn end_interrupted(registry: &Registry, old: &MasterKey, file: &Path) -> Result<bool, UpkeepError> {
    if registry.is_under(old).await? {
        return Ok(false);
    }
    MasterKey::promote(file).map_err(UpkeepError::NewMasterKey)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::app::{KeyPolicy, init};
    use crate::store::Accounts as _;
    use crate::store::sqlite::{SqliteStore, StateDirectory};

    /// Where a rotation is killed.
    #[derive(Debug, Clone, Copy)]
    enum Kill {
        WhileStaging,
        Staged,
        Wrapped,
        Never,
    }

    const KILLS: [Kill; 4] = [Kill::WhileStaging, Kill::Staged, Kill::Wrapped, Kill::Never];

    /// As [`rotate`] until it is killed.
    async fn rotate_until(kill: Kill, config: &StateConfig, new: &Path) {
        if matches!(kill, Kill::Never) {
            rotate(config, new, &Actor::Server).await.unwrap();
            return;
        }
        let file = &config.master_key_file;
        let old = MasterKey::load(file).unwrap();
        let key = MasterKey::load_or_create(new).unwrap();
        let registry = open_registry(config, Settings::default()).await.unwrap();
        end_interrupted(&registry, &old, file).await.unwrap();
        if matches!(kill, Kill::WhileStaging) {
            fs::write(MasterKey::next_file(file), b"half of a k").unwrap();
            return;
        }
        MasterKey::stage(new, file).unwrap();
        if matches!(kill, Kill::Wrapped) {
            let audit = upkeep_record(&Actor::Server, Action::KeysRotate, "master key");
            registry.rewrap_all(&key, &audit).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_state_opens_and_rotates_whatever_step_two_rotations_were_killed_at() {
        for first in KILLS {
            for second in KILLS {
                let directory = tempfile::tempdir().unwrap();
                let config = StateConfig::in_directory(&directory.path().join("state"));
                init(&config, Settings::default(), KeyPolicy::Own).await.unwrap();
                for (number, kill) in [first, second].into_iter().enumerate() {
                    rotate_until(kill, &config, &directory.path().join(format!("key-{number}"))).await;
                    open_registry(&config, Settings::default())
                        .await
                        .unwrap_or_else(|error| panic!("{first:?}, {second:?}: {error:?}"));
                }
                let last = directory.path().join("key-last");
                let rotated = rotate(&config, &last, &Actor::Server).await;
                rotated.unwrap_or_else(|error| panic!("{first:?}, {second:?}: {error:?}"));
                assert_under(&config, &last).await;
            }
        }
    }

    async fn assert_under(config: &StateConfig, key: &Path) {
        let key = MasterKey::load(key).unwrap();
        assert!(key.is(&MasterKey::load(&config.master_key_file).unwrap()));
        assert!(!MasterKey::next_file(&config.master_key_file).exists());
        let store = SqliteStore::open(&StateDirectory::existing(&config.directory).unwrap()).await.unwrap();
        for account in store.accounts().await.unwrap() {
            key.account_key(&account.id, &account.wrapped_key).unwrap();
        }
    }

    #[tokio::test]
    async fn the_key_in_use_is_no_new_key_and_doing_a_rotation_again_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = StateConfig::in_directory(&directory.path().join("state"));
        init(&config, Settings::default(), KeyPolicy::Own).await.unwrap();
        let new = directory.path().join("new");
        rotate_until(Kill::Wrapped, &config, &new).await;
        assert_eq!(rotate(&config, &new, &Actor::Server).await.unwrap(), 0);
        let again = rotate(&config, &new, &Actor::Server).await.unwrap_err();
        assert!(matches!(again, UpkeepError::SameKey(_)), "{again:?}");
    }
}
