//! The embedded backend: SQLite in WAL mode with `synchronous=FULL`.
//!
//! One connection writes, in `BEGIN IMMEDIATE` transactions, so that a server and operators'
//! commands can have the same file open; a few others only read. A write waits [`BUSY_TIMEOUT`] for
//! another process's before it fails.

mod accounts;
mod audit;
mod authorities;
mod backup;
mod budgets;
mod devboxes;
mod directory;
mod error;
mod identities;
mod integrity;
mod meta;
mod receipts;
mod recorder;
mod rekeying;
mod retention;
mod rows;
mod secrets;
#[cfg(test)]
mod tests;
mod watcher;

pub(crate) use directory::StateDirectory;
pub(crate) use directory::same_owner;
pub(crate) use integrity::{Depth, examine, examine_for_start};

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::Mutex;

use super::audit::AuditRecord;
use super::{AccountId, Meta as _, ServeClaim, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long a write waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a connection before it is refused as one too many.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

const READERS: u32 = 4;

#[derive(Debug)]
pub(crate) struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    watcher: Mutex<watcher::Watcher>,
    recorder: recorder::Recorder,
}

impl SqliteStore {
    /// Opens the database of `state` beside a server, which may be of another version: its schema
    /// stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Older`], [`StoreError::Newer`], [`StoreError::Empty`],
    /// [`StoreError::Database`].
    pub(crate) async fn open(state: &StateDirectory) -> Result<Self, StoreError> {
        let options = options(&state.database()).create_if_missing(false);
        // A read-only connection checks the schema first: a state of another version is refused
        // before anything is written to it.
        let mut connection = options.clone().pragma("query_only", "ON").connect().await?;
        let fits = integrity::check_schema(&mut connection).await;
        connection.close().await?;
        fits?;
        let writer = pool(1).connect_with(options.clone()).await?;
        Self::over(writer, pool(READERS), options.pragma("query_only", "ON")).await
    }

    /// Opens the database of `state`, makes it if there is none, and brings its schema up to date.
    /// The claim keeps a running server from a schema that it does not know. Hold
    /// [`Location::lock`](super::Location::lock) meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Migrate`], [`StoreError::Database`].
    pub(crate) async fn set_up(state: &StateDirectory, _claim: &ServeClaim) -> Result<Self, StoreError> {
        Self::open_file(&state.database()).await
    }

    /// As [`SqliteStore::set_up`] of a database that no other program has open.
    pub(crate) async fn open_file(database: &Path) -> Result<Self, StoreError> {
        let options = options(database);
        let writer = pool(1).connect_with(options.clone()).await?;
        migrate(&writer).await?;
        Self::over(writer, pool(READERS), options.pragma("query_only", "ON")).await
    }

    async fn over(
        writer: SqlitePool,
        readers: PoolOptions<Sqlite>,
        reader: SqliteConnectOptions,
    ) -> Result<Self, StoreError> {
        let readers = readers.connect_with(reader.clone()).await?;
        let watcher = watcher::Watcher::new(reader.connect().await?, reader.get_filename());
        let watcher = Mutex::new(watcher);
        let recorder = recorder::Recorder::new(writer.clone());
        Ok(Self { writer, readers, watcher, recorder })
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        begin(&self.writer).await
    }

    /// Ends a write: its audit row, then the commit.
    async fn commit(
        &self,
        mut write: Transaction<'static, Sqlite>,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        // The row is in the write's own transaction: no change is stored without its record.
        audit::insert(&mut write, audit).await?;
        Ok(write.commit().await?)
    }

    /// Removes deleted and overwritten data from the write-ahead log after a commit. A failure
    /// undoes no write; the next checkpoint repeats it.
    async fn checkpoint_if_possible(&self) {
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database's write-ahead log was not cleared"
            );
        }
    }

    /// As [`Self::commit`], and one more on the account's revision and wakes; returns the wakes.
    async fn commit_revision(
        &self,
        mut write: Transaction<'static, Sqlite>,
        account: &AccountId,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        let update =
            "UPDATE accounts SET revision = revision + 1, wakes = wakes + 1 WHERE id = ? RETURNING wakes";
        let wakes = woken(&mut write, update, account).await?;
        self.commit(write, audit).await?;
        Ok(wakes)
    }

    /// As [`Self::commit`], and one more on the account's wakes, which it returns.
    async fn commit_wake(
        &self,
        mut write: Transaction<'static, Sqlite>,
        account: &AccountId,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        let update = "UPDATE accounts SET wakes = wakes + 1 WHERE id = ? RETURNING wakes";
        let wakes = woken(&mut write, update, account).await?;
        self.commit(write, audit).await?;
        Ok(wakes)
    }
}

/// Wakes the account's held requests, by an update that returns its wakes.
async fn woken(
    write: &mut SqliteConnection,
    update: &'static str,
    account: &AccountId,
) -> Result<u64, StoreError> {
    let row = sqlx::query(update).bind(account.as_str()).fetch_one(write).await?;
    rows::unsigned(row.try_get(0)?)
}

async fn begin(writer: &SqlitePool) -> Result<Transaction<'static, Sqlite>, StoreError> {
    // A deferred transaction that reads and then writes can fail at once with SQLITE_BUSY.
    // IMMEDIATE takes the write lock first, so it waits for other writers.
    Ok(writer.begin_with("BEGIN IMMEDIATE").await?)
}

fn options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode, NORMAL may lose the last commits at a power failure, and with them a
        // revocation.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // A new state can give space back to the disk in small steps. An old one keeps its free
        // pages and uses them again, until it is restored from a backup.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        // Deleted data is overwritten, although it is encrypted anyway.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

fn pool(size: u32) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .min_connections(size)
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Connections to a local file do not go stale, so they are neither replaced nor tested.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(has_ended_its_transaction(connection)))
}

/// SQLite itself rolls a transaction back when the disk is full or fails (lang_transaction.html,
/// section 3.1). sqlx then believes it open for ever, and every later write on the connection would
/// fail: such a connection is replaced.
async fn has_ended_its_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A rollback may still be on its way to the connection's thread.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    match MIGRATIONS.run(writer).await {
        Ok(()) => Ok(()),
        // The state has a migration that this program lacks, so a newer program has written it.
        Err(MigrateError::VersionMissing(found)) => {
            Err(StoreError::Newer { found, known: integrity::newest_schema() })
        }
        Err(MigrateError::Execute(error)) => Err(error.into()),
        Err(error) => Err(StoreError::Migrate(error.into())),
    }
}
