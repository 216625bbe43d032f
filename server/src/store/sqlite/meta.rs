//! Facts of the whole state.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use crate::crypto::id::AccountId;
use crate::store::{AuditRecord, Meta, MetaKey, RewrapFor, StoreError, Wrapped};

#[async_trait]
impl Meta for SqliteStore {
    async fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT value FROM meta WHERE key = ?").bind(key.as_str());
        let row = query.fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn create_state(
        &self,
        key_check: &[u8],
        certificate: &[u8],
        wrapped_key: &[u8],
    ) -> Result<i64, StoreError> {
        let mut write = self.begin().await?;
        let query = sqlx::query("INSERT INTO authorities (certificate, wrapped_key) VALUES (?, ?)");
        let inserted = query.bind(certificate).bind(wrapped_key).execute(&mut *write).await?;
        let query = sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?)");
        query.bind(MetaKey::KeyCheck.as_str()).bind(key_check).execute(&mut *write).await?;
        write.commit().await?;
        Ok(inserted.last_insert_rowid())
    }

    async fn rewrap(&self, rewrap: &RewrapFor<'_>, audit: &AuditRecord) -> Result<u64, StoreError> {
        let mut write = self.begin().await?;
        let count = rewrap_key_check(&mut write, rewrap).await?
            + rewrap_authorities(&mut write, rewrap).await?
            + rewrap_accounts(&mut write, rewrap).await?;
        self.commit(write, audit).await?;
        self.checkpoint_if_possible().await;
        Ok(count)
    }

    /// The log's pages move into the database. Readers may stand in the way; a later checkpoint
    /// then does it.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await?;
        Ok(())
    }

    async fn changed(&self) -> Result<(), StoreError> {
        self.watcher.lock().await.changed().await
    }
}

async fn rewrap_key_check(write: &mut SqliteConnection, rewrap: &RewrapFor<'_>) -> Result<u64, StoreError> {
    let key = MetaKey::KeyCheck.as_str();
    let row = sqlx::query("SELECT value FROM meta WHERE key = ?").bind(key).fetch_one(&mut *write).await?;
    let wrapped = rewrap(Wrapped::KeyCheck, row.try_get(0)?).map_err(StoreError::Seal)?;
    let update = sqlx::query("UPDATE meta SET value = ? WHERE key = ?").bind(wrapped).bind(key);
    Ok(update.execute(write).await?.rows_affected())
}

async fn rewrap_authorities(write: &mut SqliteConnection, rewrap: &RewrapFor<'_>) -> Result<u64, StoreError> {
    let rows = sqlx::query("SELECT number, wrapped_key FROM authorities").fetch_all(&mut *write).await?;
    let mut count = 0;
    for row in rows {
        let wrapped = rewrap(Wrapped::Authority, row.try_get(1)?).map_err(StoreError::Seal)?;
        let update = sqlx::query("UPDATE authorities SET wrapped_key = ? WHERE number = ?").bind(wrapped);
        count += update.bind(row.try_get::<i64, _>(0)?).execute(&mut *write).await?.rows_affected();
    }
    Ok(count)
}

async fn rewrap_accounts(write: &mut SqliteConnection, rewrap: &RewrapFor<'_>) -> Result<u64, StoreError> {
    let rows = sqlx::query("SELECT id, wrapped_key FROM accounts").fetch_all(&mut *write).await?;
    let mut count = 0;
    for row in rows {
        let id = AccountId::new(row.try_get::<String, _>(0)?);
        let wrapped = rewrap(Wrapped::Account(&id), row.try_get(1)?).map_err(StoreError::Seal)?;
        let update = sqlx::query("UPDATE accounts SET wrapped_key = ? WHERE id = ?").bind(wrapped);
        count += update.bind(id.as_str()).execute(&mut *write).await?.rows_affected();
    }
    Ok(count)
}
