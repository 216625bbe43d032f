//! A state as a whole: looked over, copied, and put to work again.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{BUSY_TIMEOUT, MIGRATIONS, SqliteStore, audit, pool, primary_code};
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
    /// [`StoreError::Older`], [`StoreError::Newer`], [`StoreError::Empty`]; others if it is no database of this program.
    pub async fn open_to_read(database: &Path) -> Result<Self, StoreError> {
        let options = read_options(database);
        let mut connection = options.connect().await?;
        let fits = check_schema(&mut connection).await;
        connection.close().await?;
        fits?;
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
        // Rows that were written since the backup may be known elsewhere: none of the new ones has the number of one of them.
        let leap = sqlx::query("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'audit'");
        leap.bind(REVISION_LEAP).execute(&mut *write).await?;
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

/// How much of a database was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// As much as the bound allowed.
    Part,
}

/// Looks the database over as [`Depth::Quick`] does, within `START_STEPS` and `START_TIME`: a start does not take longer
/// because a state grows.
///
/// # Errors
/// As [`examine`].
pub async fn examine_for_start(database: &Path) -> Result<Extent, StoreError> {
    let mut connection = read_options(database).connect().await?;
    let (deadline, mut left) = (Instant::now() + START_TIME, START_STEPS / STEPS_A_CALL);
    let may_go_on = move || {
        left = left.saturating_sub(1);
        left > 0 && Instant::now() < deadline
    };
    let every = i32::try_from(STEPS_A_CALL).unwrap_or(i32::MAX);
    connection.lock_handle().await?.set_progress_handler(every, may_go_on);
    let found = integrity(&mut connection, Depth::Quick).await;
    connection.lock_handle().await?.remove_progress_handler();
    connection.close().await?;
    match found {
        Ok(problems) if problems.is_empty() => Ok(Extent::Whole),
        Ok(problems) => Err(StoreError::Inconsistent(problems.join("; "))),
        Err(StoreError::Database(error)) if was_interrupted(&error) => Ok(Extent::Part),
        Err(error) => Err(error),
    }
}

/// Most pages and rows that a start looks at: 256 MiB of pages.
const START_STEPS: u32 = 65_536;

/// Longest time that a start looks.
const START_TIME: Duration = Duration::from_secs(5);

/// How many of them pass between two looks at the bound.
const STEPS_A_CALL: u32 = 256;

fn was_interrupted(error: &sqlx::Error) -> bool {
    const INTERRUPT: i32 = 9;
    error.as_database_error().and_then(primary_code) == Some(INTERRUPT)
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

/// Whether the database has the schema that this program works with.
///
/// # Errors
/// [`StoreError::Older`], [`StoreError::Newer`] or [`StoreError::Empty`] if not.
pub(super) async fn check_schema(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let (known, applied) = (newest_schema(), applied_migrations(connection).await?);
    let missing = MIGRATIONS.iter().map(|migration| migration.version).find(|known| !applied.contains(known));
    match (applied.last(), missing) {
        (None, _) => Err(StoreError::Empty),
        (Some(&found), _) if found > known => Err(StoreError::Newer { found, known }),
        (Some(_), Some(missing)) => Err(StoreError::Older { found: missing - 1, known }),
        (Some(_), None) => Ok(()),
    }
}

/// The schema that this program brings a state to.
pub(super) fn newest_schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Their versions, in ascending order.
async fn applied_migrations(connection: &mut SqliteConnection) -> Result<Vec<i64>, StoreError> {
    const HAS_ANY: &str = "SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    if sqlx::query(HAS_ANY).fetch_optional(&mut *connection).await?.is_none() {
        return Ok(Vec::new());
    }
    let query = sqlx::query("SELECT version FROM _sqlx_migrations ORDER BY version");
    query.fetch_all(connection).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn read_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
}
