//! Secrets of an account.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::rows::{self, secret_columns};
use super::{SqliteStore, budgets, receipts, rekeying};
use crate::config::Limits;
use crate::crypto::id::{AccountId, SecretId};
use crate::store::{
    Answered, AuditRecord, Page, RequestKey, SealFor, SealedSecret, Secret, SecretSelector, Secrets,
    StoreError,
};

#[async_trait]
impl Secrets for SqliteStore {
    async fn insert_secret(
        &self,
        account: &AccountId,
        secret: &Secret,
        seal: &SealFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<u64, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        // The key is read in this transaction, so that no value is sealed under a key that a
        // concurrent re-keying has just replaced.
        let key = rekeying::wrapped_key(&mut write, account).await?;
        let sealed = seal(&key, secret.version).map_err(StoreError::Seal)?;
        sqlx::query(
            "INSERT INTO secrets (account_id, id, name, version, sealed, create_time_ms, update_time_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(account.as_str())
        .bind(secret.id.as_str())
        .bind(&secret.name)
        .bind(rows::signed(secret.version)?)
        .bind(sealed)
        .bind(secret.create_time_ms)
        .bind(secret.update_time_ms)
        .execute(&mut *write)
        .await?;
        // Triggers have counted the new row. An exceeded budget rolls the whole write back.
        budgets::check_new_secret(&mut write, account, limits).await?;
        let answer = Answered::Secret(secret.clone());
        receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        self.commit_revision(write, account, audit).await
    }

    async fn secret(
        &self,
        account: &AccountId,
        selector: SecretSelector<'_>,
    ) -> Result<Option<SealedSecret>, StoreError> {
        const BY_NAME: &str =
            concat!("SELECT ", secret_columns!(), ", sealed FROM secrets WHERE account_id = ? AND name = ?");
        const BY_ID: &str =
            concat!("SELECT ", secret_columns!(), ", sealed FROM secrets WHERE account_id = ? AND id = ?");
        let query = match selector {
            SecretSelector::Name(name) => sqlx::query(BY_NAME).bind(account.as_str()).bind(name),
            SecretSelector::Id(id) => sqlx::query(BY_ID).bind(account.as_str()).bind(id),
        };
        let row = query.fetch_optional(&self.readers).await?;
        row.as_ref().map(rows::sealed_secret).transpose()
    }

    async fn update_secret(
        &self,
        account: &AccountId,
        id: &SecretId,
        seal: &SealFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<(Secret, u64)>, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let Some((version, old_len)) = next_version(&mut write, account, id).await? else {
            return Ok(None);
        };
        let key = rekeying::wrapped_key(&mut write, account).await?;
        let sealed = seal(&key, version).map_err(StoreError::Seal)?;
        budgets::check_fits_bindings(&mut write, account, id, sealed.len()).await?;
        let secret = replace(&mut write, id, version, &sealed, audit.time_ms).await?;
        // An account that is over a lowered budget can still replace values by shorter ones.
        if sealed.len() as u64 > old_len {
            budgets::check_longer_value(&mut write, account, id, limits).await?;
        }
        let answer = Answered::Secret(secret.clone());
        receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        let revision = self.commit_revision(write, account, audit).await?;
        Ok(Some((secret, revision)))
    }

    async fn delete_secret(
        &self,
        account: &AccountId,
        id: &SecretId,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<u64>, StoreError> {
        const DELETE: &str =
            concat!("DELETE FROM secrets WHERE account_id = ? AND id = ? RETURNING ", secret_columns!());
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let query = sqlx::query(DELETE).bind(account.as_str()).bind(id.as_str());
        let Some(deleted) = query.fetch_optional(&mut *write).await? else {
            return Ok(None);
        };
        let answer = Answered::Secret(rows::secret(&deleted)?);
        receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        self.commit_revision(write, account, audit).await.map(Some)
    }

    async fn secrets(
        &self,
        account: &AccountId,
        after: &str,
        limit: u32,
    ) -> Result<Page<Secret>, StoreError> {
        const AFTER: &str = concat!(
            "SELECT ",
            secret_columns!(),
            " FROM secrets WHERE account_id = ? AND name > ? ORDER BY name LIMIT ?"
        );
        // The page and the count come from one snapshot.
        let mut read = self.readers.begin().await?;
        // One row more than the page shows whether there is another page.
        let query = sqlx::query(AFTER).bind(account.as_str()).bind(after).bind(i64::from(limit) + 1);
        let found = query.fetch_all(&mut *read).await?;
        let mut rows: Vec<Secret> = found.iter().map(rows::secret).collect::<Result<_, _>>()?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let query = sqlx::query("SELECT secret_count FROM accounts WHERE id = ?").bind(account.as_str());
        let count = query.fetch_optional(&mut *read).await?;
        let total_count = count.map_or(Ok(0), |row| rows::unsigned(row.try_get(0)?))?;
        Ok(Page { rows, has_more, total_count: Some(total_count) })
    }

    async fn sealed_secrets(
        &self,
        account: &AccountId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<SealedSecret>, StoreError> {
        const AFTER: &str = concat!(
            "SELECT ",
            secret_columns!(),
            ", sealed FROM secrets WHERE account_id = ? AND name > ? ORDER BY name LIMIT ?"
        );
        let query = sqlx::query(AFTER).bind(account.as_str()).bind(after).bind(limit);
        query.fetch_all(&self.readers).await?.iter().map(rows::sealed_secret).collect()
    }

    async fn secret_ids(
        &self,
        account: &AccountId,
        texts: &[&str],
    ) -> Result<Vec<Option<SecretId>>, StoreError> {
        let texts = serde_json::to_string(texts).map_err(|_| StoreError::Damaged("a list of names"))?;
        let query = sqlx::query(
            // Identifiers come before names: a secret that is named like another one's identifier
            // does not shadow it.
            "SELECT coalesce((SELECT id FROM secrets WHERE account_id = ?1 AND id = text.value),
                             (SELECT id FROM secrets WHERE account_id = ?1 AND name = text.value))
             FROM json_each(?2) AS text ORDER BY text.key",
        );
        let found = query.bind(account.as_str()).bind(texts).fetch_all(&self.readers).await?;
        found.iter().map(|row| Ok(row.try_get::<Option<String>, _>(0)?.map(SecretId::new))).collect()
    }
}

/// The version that the next value gets, and how many bytes the stored one has.
async fn next_version(
    write: &mut SqliteConnection,
    account: &AccountId,
    id: &SecretId,
) -> Result<Option<(u64, u64)>, StoreError> {
    let query =
        sqlx::query("SELECT version + 1, length(sealed) FROM secrets WHERE account_id = ? AND id = ?");
    let row = query.bind(account.as_str()).bind(id.as_str()).fetch_optional(write).await?;
    row.map(|row| Ok((rows::unsigned(row.try_get(0)?)?, rows::unsigned(row.try_get(1)?)?))).transpose()
}

async fn replace(
    write: &mut SqliteConnection,
    id: &SecretId,
    version: u64,
    sealed: &[u8],
    now_ms: i64,
) -> Result<Secret, StoreError> {
    const REPLACE: &str = concat!(
        "UPDATE secrets SET version = ?, sealed = ?, update_time_ms = max(?, update_time_ms) WHERE id = ? RETURNING ",
        secret_columns!()
    );
    let query = sqlx::query(REPLACE).bind(rows::signed(version)?).bind(sealed).bind(now_ms).bind(id.as_str());
    rows::secret(&query.fetch_one(write).await?)
}
