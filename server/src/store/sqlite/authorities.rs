//! The devbox CAs.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use crate::crypto::MASTER_KEY_ID_LEN;
use crate::store::{AuditRecord, Authorities, Authority, MetaKey, StoreError, TimeMs};

/// The only CA of a state whose schema is older: `check` reads such a state without a change.
const BEFORE_ROTATION: &str =
    "SELECT 1 AS number, certificate.value AS certificate, wrapped_key.value AS wrapped_key,
            NULL AS trusted_until_time_ms
     FROM meta AS certificate JOIN meta AS wrapped_key
     WHERE certificate.key = 'devbox-ca-certificate' AND wrapped_key.key = 'devbox-ca-key'";

#[async_trait]
impl Authorities for SqliteStore {
    async fn authorities(&self) -> Result<Vec<Authority>, StoreError> {
        let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'authorities'");
        let query = match known.fetch_optional(&self.readers).await? {
            Some(_) => sqlx::query("SELECT * FROM authorities ORDER BY number DESC"),
            None => sqlx::query(BEFORE_ROTATION),
        };
        query.fetch_all(&self.readers).await?.iter().map(authority).collect()
    }

    async fn insert_authority(
        &self,
        certificate: &[u8],
        wrapped_key: &[u8],
        until_ms: TimeMs,
        margin_ms: TimeMs,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let ended = sqlx::query("DELETE FROM authorities WHERE trusted_until_time_ms <= ?");
        ended.bind(audit.time_ms).execute(&mut *write).await?;
        let predecessor = sqlx::query(
            "UPDATE authorities SET trusted_until_time_ms = ?2 +
             max(?1, coalesce((SELECT max(not_after_time_ms) FROM certificates), 0))
             WHERE trusted_until_time_ms IS NULL",
        );
        predecessor.bind(until_ms).bind(margin_ms).execute(&mut *write).await?;
        if insert(&mut write, certificate, wrapped_key).await? == 0 {
            return Err(StoreError::Rotated);
        }
        self.commit(write, audit).await
    }

    async fn delete_authority(&self, number: i64, audit: &AuditRecord) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let delete =
            sqlx::query("DELETE FROM authorities WHERE number = ? AND trusted_until_time_ms IS NOT NULL");
        if delete.bind(number).execute(&mut *write).await?.rows_affected() == 0 {
            return Ok(false);
        }
        // Devboxes of any account may hold certificates of this CA, so all held requests query
        // again.
        sqlx::query("UPDATE accounts SET wakes = wakes + 1").execute(&mut *write).await?;
        self.commit(write, audit).await?;
        // The deleted key leaves the write-ahead log too.
        self.checkpoint_if_possible().await;
        Ok(true)
    }
}

/// As an account's key, it has to be under the state's master key. Returns how many rows were
/// added.
async fn insert(
    write: &mut SqliteConnection,
    certificate: &[u8],
    wrapped_key: &[u8],
) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "INSERT INTO authorities (certificate, wrapped_key)
         SELECT ?1, ?2 WHERE NOT EXISTS
         (SELECT 1 FROM meta WHERE key = ?3 AND substr(value, 1, ?4) <> substr(?2, 1, ?4))",
    );
    let query = query.bind(certificate).bind(wrapped_key);
    let inserted = query.bind(MetaKey::KeyCheck.as_str()).bind(MASTER_KEY_ID_LEN).execute(write).await?;
    Ok(inserted.rows_affected())
}

fn authority(row: &SqliteRow) -> Result<Authority, StoreError> {
    Ok(Authority {
        number: row.try_get("number")?,
        certificate: row.try_get("certificate")?,
        wrapped_key: row.try_get("wrapped_key")?,
        trusted_until_time_ms: row.try_get("trusted_until_time_ms")?,
    })
}
