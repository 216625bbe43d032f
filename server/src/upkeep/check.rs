//! Looks a state over, to the last sealed record, and changes nothing. What is opened is neither shown nor kept.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{UpkeepError, existing};
use crate::config::StateConfig;
use crate::crypto::{AccountKey, MasterKey, ValueLocation};
use crate::registry::check_keys;
use crate::store::{Account, Accounts, Depth, SealedSecret, Secrets, SqliteStore, StoreError, examine};

/// How many sealed values are in memory at once.
const PAGE: u32 = 64;

/// Most damaged records that are named.
const MAX_PROBLEMS: usize = 20;

/// What is in a sound state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSummary([(&'static str, i64); 3]);

impl fmt::Display for StateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.map(|(name, count)| format!("{count} {name}"));
        f.write_str(&counts.join(", "))
    }
}

/// Checks pages, indexes, references, the master key and every record under it.
///
/// # Errors
/// [`UpkeepError`] with what is wrong and what to do.
pub async fn check(config: &StateConfig) -> Result<StateSummary, UpkeepError> {
    let directory = existing(config)?;
    let master = MasterKey::load(&config.master_key_file).map_err(UpkeepError::MasterKey)?;
    let database = directory.database();
    check_database(&database, &database, master).await
}

/// As [`check()`], of a database wherever it is; errors name the file that it was copied from.
pub(super) async fn check_database(
    path: &Path,
    origin: &Path,
    master: MasterKey,
) -> Result<StateSummary, UpkeepError> {
    let failed = UpkeepError::database(origin.to_owned());
    examine(path, Depth::Full).await.map_err(&failed)?;
    let store = SqliteStore::open_to_read(path).await.map_err(&failed)?;
    let fits = check_keys(&store, master).await.map_err(&failed)?;
    let master = fits.ok_or_else(|| UpkeepError::OtherMasterKey(origin.to_owned()))?;
    let problems = check_records(&store, &master).await.map_err(&failed)?;
    let summary = StateSummary(store.counts().await.map_err(&failed)?);
    store.close().await.map_err(&failed)?;
    match problems.is_empty() {
        true => Ok(summary),
        false => Err(UpkeepError::Records { path: origin.to_owned(), problems }),
    }
}

async fn check_records(store: &SqliteStore, master: &MasterKey) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    for account in store.accounts().await? {
        match master.account_key(&account.id, &account.wrapped_key) {
            Ok(key) => check_values(store, &account, &key, &mut problems).await?,
            Err(error) => problems.push(format!("the key of account {}: {error}", account.id)),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    Ok(problems)
}

async fn check_values(
    store: &SqliteStore,
    account: &Account,
    key: &AccountKey,
    problems: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let page = store.sealed_secrets(&account.id, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.secret.name);
        problems.extend(page.into_iter().filter_map(|secret| damage(key, secret)));
    }
}

/// What is wrong with a sealed value, where anything is. The opened bytes are wiped.
fn damage(key: &AccountKey, SealedSecret { secret, sealed }: SealedSecret) -> Option<String> {
    let mut record = Zeroizing::new(sealed);
    let location = ValueLocation { secret: &secret.id, version: secret.version };
    let opened = key.open_in_place(location, &mut record);
    opened.err().map(|error| format!("the value of secret {}: {error}", secret.id))
}
