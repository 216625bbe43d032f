//! The errors of every backend. A backend maps its driver's errors to these kinds, so that callers
//! know none of the drivers.

use std::error::Error;

use thiserror::Error;

use super::Budget;
use crate::crypto::CryptoError;

pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// A failure of the store. A write that failed left no trace.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The name belongs to another row.
    #[error("the name is taken")]
    Taken,
    /// The account has a receipt for the request already; nothing was written.
    #[error("the request was answered before")]
    Answered,
    /// The state was written by a newer program.
    #[error(
        "the state was written by a newer version of this program (schema {found}, known up to {known}): \
         start that version, or restore the backup made before the upgrade"
    )]
    Newer {
        /// The schema's number in the state.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The state was written by an older program, and only the server that serves it may change its
    /// schema.
    #[error(
        "the state has the schema {found} of an older version, and this program works with {known}: restart the server \
         with this version, or run `init` while no server runs"
    )]
    Older {
        /// The schema's number in the state.
        found: i64,
        /// The one that this program works with.
        known: i64,
    },
    /// The file has no schema.
    #[error("there is no state in it: `init` sets a new state up")]
    Empty,
    /// A schema change failed.
    #[error("the state's schema could not be brought up to date")]
    Migrate(#[source] Cause),
    /// A row has a form that this program never writes.
    #[error("the state has a damaged row ({0}): restore it from a backup")]
    Damaged(&'static str),
    /// The write would go over a budget; nothing was written.
    #[error("the budget {} is used up", .0.as_str())]
    OverBudget(Budget),
    /// The value would be too long for the environment name that it is bound to; nothing was
    /// written.
    #[error("the value is too long for a name that it is bound to")]
    TooLongFor {
        /// The environment name.
        env: String,
        /// The value's length in bytes.
        len: usize,
    },
    /// A value could not be sealed in the middle of a transaction.
    #[error("a value could not be stored")]
    Seal(#[source] CryptoError),
    /// A key was wrapped under another master key than the state's; nothing was written.
    #[error("the master key was rotated: start this command again")]
    Rotated,
    /// The disk is full.
    #[error("the disk is full: free some space; the failed write left no trace, and earlier writes are kept")]
    Full(#[source] Cause),
    /// The file system or the file takes no writes.
    #[error("the database cannot be written: is its file system mounted read-only, is the file this user's?")]
    ReadOnly(#[source] Cause),
    /// The file's pages contradict each other.
    #[error(
        "the database is damaged: stop the server, keep a copy of the state directory, and restore a backup"
    )]
    Corrupt(#[source] Cause),
    /// As [`StoreError::Corrupt`], found by looking.
    #[error(
        "the database is damaged ({0}): stop the server, keep a copy of the state directory, and restore a backup"
    )]
    Inconsistent(String),
    /// No connection to the database became free in time.
    #[error("the database is busy: try again a moment later")]
    Busy(#[source] Cause),
    /// Another failure of the database.
    #[error("the database failed: look at free disk space, permissions and the state directory")]
    Database(#[source] Cause),
}

impl StoreError {
    /// Whether the same request may succeed a moment later, because the database was only busy.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}
