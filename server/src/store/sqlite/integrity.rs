//! Checks of a database: its pages, its references, and its schema.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::error::was_interrupted;
use super::{BUSY_TIMEOUT, MIGRATIONS};
use crate::store::{Extent, StoreError};

/// The most problems that are reported of one database.
const MAX_PROBLEMS: usize = 20;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Every page, in time that is proportional to the file.
    Quick,
    /// Also that every index agrees with its table, and that every reference has its row.
    Full,
}

/// Checks the database.
///
/// # Errors
/// [`StoreError::Inconsistent`] with the damage; [`StoreError`] where it cannot even be read.
pub(crate) async fn examine(database: &Path, depth: Depth) -> Result<(), StoreError> {
    let mut connection = read_options(database).connect().await?;
    let mut problems = integrity(&mut connection, depth).await?;
    if depth == Depth::Full && problems.is_empty() {
        problems = dangling(&mut connection).await?;
    }
    connection.close().await?;
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Inconsistent(problems.join("; "))) }
}

async fn integrity(connection: &mut SqliteConnection, depth: Depth) -> Result<Vec<String>, sqlx::Error> {
    let rows = match depth {
        Depth::Quick => sqlx::query("PRAGMA quick_check(20)").fetch_all(connection).await?,
        Depth::Full => sqlx::query("PRAGMA integrity_check(20)").fetch_all(connection).await?,
    };
    let lines = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").map(one_line).collect())
}

/// Checks the database as [`Depth::Quick`] does, within `START_STEPS` and `START_TIME`, so that the
/// start does not slow down as the state grows.
///
/// # Errors
/// As [`examine`].
pub(crate) async fn examine_for_start(database: &Path) -> Result<Extent, StoreError> {
    let mut connection = read_options(database).connect().await?;
    let deadline = Instant::now() + START_TIME;
    let mut left = START_STEPS / STEPS_A_CALL;
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
        Err(error) if was_interrupted(&error) => Ok(Extent::Part),
        Err(error) => Err(error.into()),
    }
}

/// The most pages and rows that a start checks: 256 MiB of pages.
const START_STEPS: u32 = 65_536;

/// The longest check of a start.
const START_TIME: Duration = Duration::from_secs(5);

/// The steps between two checks of the bound.
const STEPS_A_CALL: u32 = 256;

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
    let known = newest_schema();
    let applied = applied_migrations(connection).await?;
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

pub(super) fn read_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
}
