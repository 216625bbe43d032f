//! Receipts of writes that callers may try again.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use super::SqliteStore;
use crate::crypto::id::AccountId;
use crate::store::{Answered, RECEIPT_LIFETIME_MS, Receipt, Receipts, RequestKey, StoreError, TimeMs};

#[async_trait]
impl Receipts for SqliteStore {
    async fn receipt(
        &self,
        account: &AccountId,
        request: &str,
        now_ms: TimeMs,
    ) -> Result<Option<Receipt>, StoreError> {
        let query = sqlx::query(
            "SELECT fingerprint, answer FROM receipts
             WHERE account_id = ? AND request_id = ? AND create_time_ms > ?",
        );
        let query = query.bind(account.as_str()).bind(request).bind(now_ms - RECEIPT_LIFETIME_MS);
        query.fetch_optional(&self.readers).await?.as_ref().map(receipt).transpose()
    }
}

impl SqliteStore {
    /// Begins a write that is done once. Only one write is open at a time, so that of several of
    /// one id the first leaves its receipt before the next one looks for it.
    pub(super) async fn begin_once(
        &self,
        account: &AccountId,
        request: Option<&RequestKey>,
        now_ms: TimeMs,
    ) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let mut write = self.begin().await?;
        let Some(request) = request else { return Ok(write) };
        // Expired receipts go first: their ids may be used again.
        prune(&mut write, now_ms).await?;
        let query = sqlx::query("SELECT 1 FROM receipts WHERE account_id = ? AND request_id = ?");
        let query = query.bind(account.as_str()).bind(&request.id);
        match query.fetch_optional(&mut *write).await? {
            Some(_) => Err(StoreError::Answered),
            None => Ok(write),
        }
    }
}

async fn prune(write: &mut SqliteConnection, now_ms: TimeMs) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM receipts WHERE create_time_ms <= ?");
    query.bind(now_ms - RECEIPT_LIFETIME_MS).execute(write).await?;
    Ok(())
}

/// Writes the receipt, if the request has an id.
pub(super) async fn insert(
    write: &mut SqliteConnection,
    account: &AccountId,
    request: Option<&RequestKey>,
    now_ms: TimeMs,
    answer: &Answered,
) -> Result<(), StoreError> {
    let Some(request) = request else { return Ok(()) };
    let answer = serde_json::to_string(answer).map_err(|_| StoreError::Damaged("an answer"))?;
    sqlx::query(
        "INSERT INTO receipts (account_id, request_id, fingerprint, answer, create_time_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(account.as_str())
    .bind(&request.id)
    .bind(&request.fingerprint[..])
    .bind(answer)
    .bind(now_ms)
    .execute(write)
    .await?;
    Ok(())
}

fn receipt(row: &SqliteRow) -> Result<Receipt, StoreError> {
    let fingerprint: &[u8] = row.try_get("fingerprint")?;
    let answer: &str = row.try_get("answer")?;
    Ok(Receipt {
        fingerprint: fingerprint.try_into().map_err(|_| StoreError::Damaged("a receipt's fingerprint"))?,
        answer: serde_json::from_str(answer).map_err(|_| StoreError::Damaged("a receipt's answer"))?,
    })
}
