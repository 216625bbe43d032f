//! A state as a whole: looked over, copied, and put to work again.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{BUSY_TIMEOUT, MIGRATIONS, SqliteStore, audit, pool};
use crate::store::{AuditRecord, StoreError};

/// How far a restored account's revision goes ahead: further than writes since the backup can have gone. A devbox that
/// knows one of their revisions then never takes the restored state for what it has.
const REVISION_LEAP: i64 = 1 << 32;

/// Most problems that are told of one database.
const MAX_PROBLEMS: usize = 20;

impl SqliteStore {
    /// Opens a database to look at it: nothing is changed, not even its schema.
    ///
    /// # Errors
    /// [`StoreError::Newer`]; [`StoreError`] where it is no database of this program.
    pub async fn open_to_read(database: &Path) -> Result<Self, StoreError> {
        let options = read_options(database);
        let mut connection = options.connect().await?;
        let found = schema(&mut connection).await?;
        connection.close().await?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        Self::over(pool(1).connect_with(options.clone()).await?, options).await
    }

    /// Ends every connection, so that all of the state is in its one file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(self) -> Result<(), StoreError> {
        self.watcher.into_inner().close().await?;
        self.readers.close().await;
        self.writer.close().await;
        Ok(())
    }

    /// Writes a consistent copy of the state, as it is at one moment, to `file`, which is empty. Others read and write on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        let file = file.to_str().ok_or(StoreError::Damaged("a path that is not UTF-8"))?;
        sqlx::query("VACUUM INTO ?").bind(file).execute(&self.writer).await?;
        Ok(())
    }

    /// Makes a restored state another one than that which devboxes know.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn leap_ahead(&self, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let update = sqlx::query("UPDATE accounts SET revision = revision + ?1, wakes = wakes + ?1")
            .bind(REVISION_LEAP);
        update.execute(&mut *write).await?;
        audit::insert(&mut write, audit).await?;
        Ok(write.commit().await?)
    }

    /// How many rows the tables have that people ask for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self) -> Result<[(&'static str, i64); 3], StoreError> {
        const COUNTS: &str = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM secrets),
                              (SELECT count(*) FROM devboxes)";
        let row = sqlx::query(COUNTS).fetch_one(&self.readers).await?;
        Ok([("accounts", row.try_get(0)?), ("secrets", row.try_get(1)?), ("devboxes", row.try_get(2)?)])
    }
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every page, in time that is proportional to the file.
    Quick,
    /// Also that every index agrees with its table, and that every reference has its row.
    Full,
}

/// Looks the database over.
///
/// # Errors
/// [`StoreError::Inconsistent`] with what is wrong; [`StoreError`] where it cannot even be read.
pub async fn examine(database: &Path, depth: Depth) -> Result<(), StoreError> {
    let mut connection = read_options(database).connect().await?;
    let mut problems = integrity(&mut connection, depth).await?;
    if depth == Depth::Full && problems.is_empty() {
        problems = dangling(&mut connection).await?;
    }
    connection.close().await?;
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Inconsistent(problems.join("; "))) }
}

async fn integrity(connection: &mut SqliteConnection, depth: Depth) -> Result<Vec<String>, StoreError> {
    let rows = match depth {
        Depth::Quick => sqlx::query("PRAGMA quick_check(20)").fetch_all(connection).await?,
        Depth::Full => sqlx::query("PRAGMA integrity_check(20)").fetch_all(connection).await?,
    };
    let lines = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").map(one_line).collect())
}

async fn dangling(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query("PRAGMA foreign_key_check").fetch_all(connection).await?;
    let problem = |row: &SqliteRow| -> Result<String, StoreError> {
        let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
        Ok(format!("a row of {table} refers to a row of {parent} that is not there"))
    };
    rows.iter().take(MAX_PROBLEMS).map(problem).collect()
}

fn one_line(text: String) -> String {
    text.replace('\n', ", ")
}

async fn schema(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT max(version) FROM _sqlx_migrations").fetch_one(connection).await?;
    row.try_get::<Option<i64>, _>(0)?.ok_or(StoreError::Damaged("a database without a schema"))
}

fn read_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
}
