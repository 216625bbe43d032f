//! The state as one file: copied beside a server, read without a change, and put to work again.

use std::path::Path;

use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::integrity::{check_schema, read_options};
use super::{SqliteStore, audit, pool};
use crate::store::{AuditRecord, StoreError};

/// The distance by which a restored account's revision advances: more than all writes since the
/// backup. So a devbox that has a later revision never mistakes the restored state for its own.
const REVISION_LEAP: i64 = 1 << 32;

impl SqliteStore {
    /// Opens a database to read it: no byte is changed, not even its schema. All reads see one
    /// snapshot, taken before this returns, so that writes and prunes of other programs cause no
    /// contradiction. The write-ahead log grows as long as it is open.
    ///
    /// # Errors
    /// [`StoreError::Older`], [`StoreError::Newer`], [`StoreError::Empty`]; others if it is no
    /// database of this program.
    pub(crate) async fn open_to_read(database: &Path) -> Result<Self, StoreError> {
        let options = read_options(database);
        let mut connection = options.connect().await?;
        let fits = check_schema(&mut connection).await;
        connection.close().await?;
        fits?;
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(1).after_connect(|connection, _| Box::pin(begin_reading(connection)));
        Self::over(writer, readers, options).await
    }

    /// Closes every connection, so that the whole state is in its one file.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.watcher.into_inner().close().await?;
        self.readers.close().await;
        self.writer.close().await;
        Ok(())
    }

    /// Writes a consistent copy of the state, as it is at one moment, to `file`, which is empty.
    /// Others continue to read and write.
    pub(crate) async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        let file = file.to_str().ok_or(StoreError::Damaged("a path that is not UTF-8"))?;
        sqlx::query("VACUUM INTO ?").bind(file).execute(&self.writer).await?;
        Ok(())
    }

    /// Advances the revisions of a restored state past those that devboxes have.
    pub(crate) async fn advance_past_backup(&self, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let update = sqlx::query("UPDATE accounts SET revision = revision + ?1, wakes = wakes + ?1")
            .bind(REVISION_LEAP);
        update.execute(&mut *write).await?;
        // Audit rows written since the backup may have been exported, so no new row may reuse one
        // of their numbers.
        let leap = sqlx::query("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'audit'");
        leap.bind(REVISION_LEAP).execute(&mut *write).await?;
        audit::insert(&mut write, audit).await?;
        Ok(write.commit().await?)
    }

    /// The numbers of accounts, secrets and devboxes.
    pub(crate) async fn counts(&self) -> Result<[(&'static str, i64); 3], StoreError> {
        const COUNTS: &str = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM secrets),
                              (SELECT count(*) FROM devboxes)";
        let row = sqlx::query(COUNTS).fetch_one(&self.readers).await?;
        Ok([("accounts", row.try_get(0)?), ("secrets", row.try_get(1)?), ("devboxes", row.try_get(2)?)])
    }
}

/// Starts a read transaction that lasts as long as the connection. SQLite takes its snapshot at the
/// first read, not at `BEGIN` (lang_transaction.html, section 2.1).
async fn begin_reading(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await.map(drop)
}
