//! The audit table. Triggers keep it append-only.
//!
//! Rows that belong to no other write are committed together: when a thousand devboxes fetch at once, the disk is not
//! waited for a thousand times. Each is on disk before its caller goes on.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use crate::crypto::id::AccountId;
use crate::store::{AuditEntry, AuditLog, AuditRecord, StoreError};

#[async_trait]
impl AuditLog for SqliteStore {
    async fn record(&self, audit: &AuditRecord) -> Result<(), StoreError> {
        self.recorder.record(audit.clone()).await
    }

    async fn audit(&self, account: Option<&AccountId>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let query = sqlx::query(
            "SELECT * FROM audit WHERE ?1 IS NULL OR account_id = ?1 ORDER BY sequence DESC LIMIT ?2",
        );
        let found = query.bind(account.map(AccountId::as_str)).bind(limit).fetch_all(&self.readers).await?;
        found.iter().map(entry).collect()
    }
}

pub(super) async fn insert(write: &mut SqliteConnection, audit: &AuditRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (time_ms, account_id, actor_kind, actor, action, object, object_name, outcome, reason,
                            remote_address)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(audit.time_ms)
    .bind(audit.account.as_ref().map(AccountId::as_str))
    .bind(audit.actor.kind())
    .bind(audit.actor.name())
    .bind(audit.action.as_str())
    .bind(&audit.object)
    .bind(&audit.object_name)
    .bind(audit.outcome.as_str())
    .bind(&audit.reason)
    .bind(audit.remote.map(|address| address.to_string()))
    .execute(write)
    .await?;
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        sequence: row.try_get("sequence")?,
        time_ms: row.try_get("time_ms")?,
        account: row.try_get("account_id")?,
        actor_kind: row.try_get("actor_kind")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        object_name: row.try_get("object_name")?,
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        remote_address: row.try_get("remote_address")?,
    })
}
