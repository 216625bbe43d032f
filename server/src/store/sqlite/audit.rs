//! The audit table. Triggers keep it append-only above its floor, and each row is chained to the
//! one before it.
//!
//! Rows that belong to no other write are committed together: when a thousand devboxes fetch at
//! once, that takes far fewer than a thousand disk flushes. Each row is on disk before its caller
//! continues.

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use crate::crypto::id::AccountId;
use crate::store::{
    AuditEntry, AuditFloor, AuditHash, AuditLog, AuditPage, AuditRecord, CHAIN_START, StoreError, chained,
};

/// Most rows that are deleted in one transaction.
const DELETED_AT_ONCE: u32 = 512;

#[async_trait]
impl AuditLog for SqliteStore {
    async fn record(&self, audit: &AuditRecord) -> Result<(), StoreError> {
        self.recorder.record(audit.clone()).await
    }

    async fn audit_page(
        &self,
        account: Option<&AccountId>,
        page: AuditPage,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let (of_all, of_account, from) = match page {
            AuditPage::NewestBefore(from) => (NEWEST, NEWEST_OF_ACCOUNT, from),
            AuditPage::OldestAfter(from) => (OLDEST, OLDEST_OF_ACCOUNT, from),
        };
        let query = match account {
            None => sqlx::query(of_all).bind(from),
            Some(account) => sqlx::query(of_account).bind(from).bind(account.as_str()),
        };
        query.bind(limit).fetch_all(&self.readers).await?.iter().map(entry).collect()
    }

    async fn audit_floor(&self) -> Result<AuditFloor, StoreError> {
        floor(&mut *self.readers.acquire().await?).await
    }

    async fn raise_audit_floor(&self, sequence: i64, audit: &AuditRecord) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let floor = floor(&mut write).await?;
        if floor.sequence >= sequence {
            return Ok(false);
        }
        let query = sqlx::query("SELECT hash FROM audit WHERE sequence < ? ORDER BY sequence DESC LIMIT 1");
        let last = query.bind(sequence).fetch_optional(&mut *write).await?;
        // Between both floors there may be no row: a restore leaves a gap in the numbers.
        let hash: Option<Vec<u8>> = match last {
            Some(row) => row.try_get(0)?,
            None => floor.hash.map(|hash| hash.to_vec()),
        };
        insert(&mut write, audit).await?;
        let update = sqlx::query("UPDATE audit_floor SET sequence = ?, hash = ?").bind(sequence).bind(hash);
        update.execute(&mut *write).await?;
        write.commit().await?;
        Ok(true)
    }

    async fn delete_audit_beneath_floor(&self) -> Result<u64, StoreError> {
        const DELETE: &str = "DELETE FROM audit WHERE sequence IN
            (SELECT sequence FROM audit WHERE sequence < (SELECT sequence FROM audit_floor) ORDER BY sequence LIMIT ?)";
        let mut write = self.begin().await?;
        let deleted = sqlx::query(DELETE).bind(DELETED_AT_ONCE).execute(&mut *write).await?.rows_affected();
        write.commit().await?;
        Ok(deleted)
    }
}

const NEWEST: &str = "SELECT * FROM audit WHERE sequence < ? ORDER BY sequence DESC LIMIT ?";
const OLDEST: &str = "SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?";
const NEWEST_OF_ACCOUNT: &str =
    "SELECT * FROM audit WHERE sequence < ? AND account_id = ? ORDER BY sequence DESC LIMIT ?";
const OLDEST_OF_ACCOUNT: &str =
    "SELECT * FROM audit WHERE sequence > ? AND account_id = ? ORDER BY sequence LIMIT ?";

/// Adds one row to the chain.
pub(super) async fn insert(write: &mut SqliteConnection, audit: &AuditRecord) -> Result<(), StoreError> {
    insert_all(write, std::slice::from_ref(audit)).await
}

/// Adds rows to the chain, whose end is read once.
pub(super) async fn insert_all(write: &mut SqliteConnection, rows: &[AuditRecord]) -> Result<(), StoreError> {
    // The caller holds the write lock, so no other row can follow on the same end.
    let (mut sequence, mut hash) = chain_end(write).await?;
    for row in rows {
        sequence += 1;
        let entry = AuditEntry::new(sequence, row);
        hash = chained(&hash, &entry);
        insert_entry(write, &entry, &hash).await?;
    }
    Ok(())
}

/// The number and the hash that the next row follows on.
async fn chain_end(write: &mut SqliteConnection) -> Result<(i64, AuditHash), StoreError> {
    // SQLite's counter, not the last row's number: a restore advances it to leave a visible gap.
    const LAST: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audit'), 0),
                               (SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1)";
    let row = sqlx::query(LAST).fetch_one(write).await?;
    Ok((row.try_get(0)?, hash(row.try_get(1)?)?.unwrap_or(CHAIN_START)))
}

async fn insert_entry(
    write: &mut SqliteConnection,
    entry: &AuditEntry,
    hash: &AuditHash,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (sequence, time_ms, account_id, actor_kind, actor, action, object, object_name, outcome,
                            reason, remote_address, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(entry.sequence)
    .bind(entry.time_ms)
    .bind(&entry.account)
    .bind(&entry.actor_kind)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.object)
    .bind(&entry.object_name)
    .bind(&entry.outcome)
    .bind(&entry.reason)
    .bind(&entry.remote_address)
    .bind(&hash[..])
    .execute(write)
    .await?;
    Ok(())
}

async fn floor(connection: &mut SqliteConnection) -> Result<AuditFloor, StoreError> {
    let row = sqlx::query("SELECT sequence, hash FROM audit_floor").fetch_one(connection).await?;
    Ok(AuditFloor { sequence: row.try_get(0)?, hash: hash(row.try_get(1)?)? })
}

fn hash(stored: Option<Vec<u8>>) -> Result<Option<AuditHash>, StoreError> {
    let whole = |bytes: Vec<u8>| bytes.try_into().map_err(|_| StoreError::Damaged("a hash in the audit"));
    stored.map(whole).transpose()
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
        hash: hash(row.try_get("hash")?)?.map(|hash| HEXLOWER.encode(&hash)),
    })
}
