//! `restore`: restores a backup into an empty state directory, after it was found complete and
//! under the given master key.
//!
//! Everything after the backup is undone, including revocations. Revisions continue far ahead, so
//! that no devbox mistakes the restored state for the one it has.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::check::{StateSummary, check_database};
use super::output::print_line;
use super::upkeep::{Draft, UpkeepError, file_error};
use super::{Failure, StateArgs, operator};
use crate::config::StateConfig;
use crate::crypto::MasterKey;
use crate::registry::{Actor, upkeep_record};
use crate::store::sqlite::{Depth, SqliteStore, StateDirectory, examine};
use crate::store::{Action, AuditLog as _, AuditRecord, Location as _};

/// Restore a backup into an empty state directory; put its master key in place first
///
/// Everything after the backup is undone, including revocations: repeat those that were made since.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

pub(super) async fn run(args: &RestoreArgs, state: &StateArgs) -> Result<(), Failure> {
    let summary = restore(&state.location()?, &args.from, &operator()).await?;
    let line = format!("restored {summary}: revoke again what was revoked since the backup\n");
    print_line(line.as_bytes())
}

/// Restores the backup `from`. A failure leaves the state directory without a state, as it was.
///
/// # Errors
/// [`UpkeepError::StateExists`]; others if the backup is damaged, newer, or of another master key.
async fn restore(config: &StateConfig, from: &Path, actor: &Actor) -> Result<StateSummary, UpkeepError> {
    let directory = StateDirectory::open(&config.directory).map_err(UpkeepError::State)?;
    // The claim keeps servers out, and the lock other programs, until the state is complete.
    let _claim = directory.claim().map_err(UpkeepError::State)?;
    let _lock = directory.lock().map_err(UpkeepError::State)?;
    // The check is under the lock: the second of two concurrent restores finds the state.
    if directory.has_database() {
        return Err(UpkeepError::StateExists(config.directory.clone()));
    }
    let master = MasterKey::load(&config.master_key_file).map_err(UpkeepError::MasterKey)?;
    let draft = Draft::new(&directory.database())?;
    copy(from, draft.path()).map_err(|source| file_error(from, source))?;
    // A damaged backup is refused before its copy is migrated and written to.
    examine(draft.path(), Depth::Full).await.map_err(UpkeepError::database(from.to_owned()))?;
    begin_anew(draft.path(), from, actor).await?;
    // The copy is moved into place only after every record has opened under the master key.
    let summary = check_database(draft.path(), from, master).await?;
    draft.keep()?;
    directory.adopt(&directory.database()).map_err(UpkeepError::State)?;
    Ok(summary)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).open(to)?;
    io::copy(&mut source, &mut copy).map(drop)
}

/// Also brings the schema of an older backup up to date.
async fn begin_anew(database: &Path, from: &Path, actor: &Actor) -> Result<(), UpkeepError> {
    let failed = UpkeepError::database(from.to_owned());
    let store = SqliteStore::open_file(database).await.map_err(&failed)?;
    let newest = store.audit(None, 1).await.map_err(&failed)?.pop();
    let gap = newest.map(|newest| {
        format!(
            "the audit has a gap after row {}: what was written since the backup is not in it",
            newest.sequence
        )
    });
    let audit = upkeep_record(actor, Action::StateRestore, &from.display().to_string());
    let audit = AuditRecord { reason: gap, ..audit };
    store.advance_past_backup(&audit).await.map_err(&failed)?;
    store.close().await.map_err(failed)
}
