//! Deleting what ended long ago. Each call is one small transaction; between two of them others
//! write.

use async_trait::async_trait;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use super::SqliteStore;
use crate::store::{Ended, Retention, StoreError, TimeMs};

/// Most rows that one call deletes.
const ROWS: u32 = 256;

/// Most devboxes that one call deletes: each may have as many bindings as its budget allows.
const DEVBOXES: u32 = 8;

/// Most pages that one call gives back to the disk.
const PAGES: u32 = 256;

/// Longest life of a certificate, in milliseconds, as the configuration allows it. A certificate
/// that was ended early has the end 0, and its row stays as long as TLS would accept it: the row
/// says that it ended.
const LONGEST_CERTIFICATE_MS: TimeMs = 30 * 86_400_000;

#[async_trait]
impl Retention for SqliteStore {
    async fn delete_ended(&self, what: Ended, before_ms: TimeMs) -> Result<u64, StoreError> {
        let mut write = self.begin().await?;
        let deleted = match what {
            Ended::Certificates => {
                delete(&mut write, CERTIFICATES, before_ms - LONGEST_CERTIFICATE_MS, before_ms).await?
            }
            Ended::JoinTokens => delete(&mut write, JOIN_TOKENS, before_ms, before_ms).await?,
            Ended::Receipts => delete(&mut write, RECEIPTS, before_ms, before_ms).await?,
            Ended::Devboxes => delete_devboxes(&mut write, before_ms).await?,
        };
        write.commit().await?;
        Ok(deleted)
    }

    async fn shrink(&self) -> Result<bool, StoreError> {
        if self.free_pages().await? < PAGES {
            return Ok(false);
        }
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES})"));
        let before = self.free_pages().await?;
        sqlx::query(statement).fetch_all(&self.writer).await?;
        // A state from before this was possible keeps its pages, for its own later use.
        Ok(self.free_pages().await? < before)
    }
}

impl SqliteStore {
    async fn free_pages(&self) -> Result<u32, StoreError> {
        Ok(sqlx::query("PRAGMA freelist_count").fetch_one(&self.writer).await?.try_get(0)?)
    }
}

const CERTIFICATES: &str = "DELETE FROM certificates WHERE serial IN
    (SELECT serial FROM certificates
     WHERE issue_time_ms < ?2 AND not_after_time_ms < ?2 AND (not_after_time_ms > 0 OR issue_time_ms < ?1) LIMIT ?3)";

const JOIN_TOKENS: &str = "DELETE FROM join_tokens WHERE devbox_id IN
    (SELECT devbox_id FROM join_tokens WHERE expire_time_ms < ?2 AND coalesce(use_time_ms, 0) < ?1 LIMIT ?3)";

const RECEIPTS: &str = "DELETE FROM receipts WHERE (account_id, request_id) IN
    (SELECT account_id, request_id FROM receipts WHERE create_time_ms <= ?2 AND create_time_ms <= ?1 LIMIT ?3)";

async fn delete(
    write: &mut SqliteConnection,
    statement: &'static str,
    first_ms: TimeMs,
    second_ms: TimeMs,
) -> Result<u64, StoreError> {
    let query = sqlx::query(statement).bind(first_ms).bind(second_ms).bind(ROWS);
    Ok(query.execute(write).await?.rows_affected())
}

async fn delete_devboxes(
    write: &mut Transaction<'static, Sqlite>,
    before_ms: TimeMs,
) -> Result<u64, StoreError> {
    const ENDED: &str = "SELECT id FROM devboxes WHERE status = 'shutdown' AND end_time_ms < ? LIMIT ?";
    let rows = sqlx::query(ENDED).bind(before_ms).bind(DEVBOXES).fetch_all(&mut **write).await?;
    let mut deleted = 0;
    for row in rows {
        let id: String = row.try_get(0)?;
        for statement in DEVBOX_AND_ITS_ROWS {
            deleted += sqlx::query(statement).bind(&id).execute(&mut **write).await?.rows_affected();
        }
    }
    Ok(deleted)
}

const DEVBOX_AND_ITS_ROWS: [&str; 5] = [
    "DELETE FROM bindings WHERE devbox_id = ?",
    "DELETE FROM gateways WHERE devbox_id = ?",
    "DELETE FROM join_tokens WHERE devbox_id = ?",
    "DELETE FROM certificates WHERE devbox_id = ?",
    "DELETE FROM devboxes WHERE id = ?",
];
