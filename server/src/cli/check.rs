//! `check`: the configuration and its files, and with `--deep` the state down to the last sealed
//! record. It changes no file, and shows or keeps no opened value.

use std::fmt;
use std::path::Path;

use clap::Args;
use zeroize::Zeroizing;

use super::output::print_line;
use super::upkeep::{UpkeepError, existing};
use super::{Failure, StateArgs};
use crate::config::{Config, StateConfig};
use crate::crypto::{AccountKey, MasterKey, ValueLocation};
use crate::pki::tls;
use crate::registry::check_keys;
use crate::store::sqlite::{Depth, SqliteStore, examine};
use crate::store::{Account, AuditPage, Chain, SealedSecret, Store, StoreError};

/// Check --config FILE and the files that it names, and report every mistake; with --deep also the
/// state
///
/// With --state DIR, checks the state. Changes nothing, and works beside a running server.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Also read the whole state; the time grows with its size
    #[arg(long)]
    deep: bool,
}

pub(super) async fn run(args: CheckArgs, state: &StateArgs) -> Result<(), Failure> {
    if state.config.is_some() {
        check_configuration(&state.config()?)?;
    }
    if state.config.is_none() || args.deep {
        let summary = check(&state.location()?).await?;
        print_line(format!("the state is good: {summary}\n").as_bytes())?;
    }
    Ok(())
}

/// Reads the configuration's files but no database, so its time does not grow with the state.
fn check_configuration(config: &Config) -> Result<(), Failure> {
    if let Some(files) = &config.api.tls {
        tls::check_public(files).map_err(Failure::Tls)?;
    }
    MasterKey::load(&config.state.master_key_file).map_err(Failure::MasterKey)?;
    print_line(b"the configuration is good\n")?;
    match config.state.has_state() {
        true => Ok(()),
        false => print_line(b"there is no state yet: `init` sets it up\n"),
    }
}

/// How many sealed values are in memory at once.
const PAGE: u32 = 64;

/// How many rows of the audit are in memory at once.
const AUDIT_PAGE: u32 = 1024;

/// The most damaged records that are named.
const MAX_PROBLEMS: usize = 20;

/// The contents of a sound state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateSummary {
    counts: [(&'static str, i64); 3],
    /// The newest row of the audit: its number and its hash.
    audit_head: Option<(i64, String)>,
}

impl fmt::Display for StateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.map(|(name, count)| format!("{count} {name}"));
        f.write_str(&counts.join(", "))?;
        match &self.audit_head {
            Some((sequence, hash)) => write!(f, "; the audit's chain ends with row {sequence}, {hash}"),
            None => Ok(()),
        }
    }
}

/// Checks pages, indexes, references, the master key and every record under it.
///
/// # Errors
/// [`UpkeepError`] with the damage and the remedy.
async fn check(config: &StateConfig) -> Result<StateSummary, UpkeepError> {
    let database = existing(config)?.database();
    let load = || MasterKey::load(&config.master_key_file).map_err(UpkeepError::MasterKey);
    match check_database(&database, &database, load()?).await {
        // A rotation may have come between the key's file and the database: then a second look
        // fits.
        Err(UpkeepError::OtherMasterKey(_)) => check_database(&database, &database, load()?).await,
        checked => checked,
    }
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
    let mut problems = check_records(&store, &master).await.map_err(&failed)?;
    let audit_head = check_audit(&store, &mut problems).await.map_err(&failed)?;
    let summary = StateSummary { counts: store.counts().await.map_err(&failed)?, audit_head };
    store.close().await.map_err(&failed)?;
    match problems.is_empty() {
        true => Ok(summary),
        false => Err(UpkeepError::Records { path: origin.to_owned(), problems }),
    }
}

async fn check_records(store: &dyn Store, master: &MasterKey) -> Result<Vec<String>, StoreError> {
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

/// Follows the audit's chain to its end, which it returns.
async fn check_audit(
    store: &dyn Store,
    problems: &mut Vec<String>,
) -> Result<Option<(i64, String)>, StoreError> {
    let floor = store.audit_floor().await?;
    let mut chain = Chain::after(floor.hash);
    let mut after = floor.sequence - 1;
    let mut head = None;
    loop {
        let page = store.audit_page(None, AuditPage::OldestAfter(after), AUDIT_PAGE).await?;
        let Some(last) = page.last() else { return Ok(head) };
        (after, head) = (last.sequence, last.hash.clone().map(|hash| (last.sequence, hash)));
        let broken = page.iter().find(|entry| !chain.follows(entry));
        if let Some(entry) = broken {
            let sequence = entry.sequence;
            problems.push(format!("row {sequence} of the audit does not follow on the row before it"));
            return Ok(None);
        }
    }
}

async fn check_values(
    store: &dyn Store,
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

/// The fault of a sealed value, if it has one. The opened bytes are wiped.
fn damage(key: &AccountKey, SealedSecret { secret, sealed }: SealedSecret) -> Option<String> {
    let mut record = Zeroizing::new(sealed);
    let location = ValueLocation { secret: &secret.id, version: secret.version };
    let opened = key.open_in_place(location, &mut record);
    opened.err().map(|error| format!("the value of secret {}: {error}", secret.id))
}
