//! SQLite's errors as those of every backend.

use sqlx::error::DatabaseError;

use crate::store::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Taken,
            sqlx::Error::Database(database) => match primary_code(database.as_ref()) {
                Some(FULL) => Self::Full(error.into()),
                Some(READ_ONLY) => Self::ReadOnly(error.into()),
                Some(CORRUPT | NOT_A_DATABASE) => Self::Corrupt(error.into()),
                _ => Self::Database(error.into()),
            },
            sqlx::Error::PoolTimedOut => Self::Busy(error.into()),
            _ => Self::Database(error.into()),
        }
    }
}

/// SQLite's own number of a failure without what extends it (rescode.html, section 2).
fn primary_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

const READ_ONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const NOT_A_DATABASE: i32 = 26;
const INTERRUPT: i32 = 9;

/// Whether a progress handler stopped the statement.
pub(super) fn was_interrupted(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(primary_code) == Some(INTERRUPT)
}
