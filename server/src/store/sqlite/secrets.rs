//! Secrets of an account.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::rows::{self, secret_columns};
use super::{SqliteStore, count, receipts};
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
        secret: &SealedSecret,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<u64, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        sqlx::query(
            "INSERT INTO secrets (account_id, id, name, version, sealed, create_time_ms, update_time_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(account.as_str())
        .bind(secret.secret.id.as_str())
        .bind(&secret.secret.name)
        .bind(rows::signed(secret.secret.version)?)
        .bind(&secret.sealed)
        .bind(secret.secret.create_time_ms)
        .bind(secret.secret.update_time_ms)
        .execute(&mut *write)
        .await?;
        let answer = Answered::Secret(secret.secret.clone());
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
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<(Secret, u64)>, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let Some(version) = next_version(&mut write, account, id).await? else {
            return Ok(None);
        };
        let sealed = seal(version).map_err(StoreError::Seal)?;
        let secret = replace(&mut write, id, version, &sealed, audit.time_ms).await?;
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

    async fn secrets(&self, account: &AccountId, limit: u32) -> Result<Page<Secret>, StoreError> {
        const FIRST: &str =
            concat!("SELECT ", secret_columns!(), " FROM secrets WHERE account_id = ? ORDER BY name LIMIT ?");
        let mut read = self.readers.begin().await?;
        let found = sqlx::query(FIRST).bind(account.as_str()).bind(limit).fetch_all(&mut *read).await?;
        let total_count =
            count("SELECT count(*) FROM secrets WHERE account_id = ?", account, &mut read).await?;
        let rows: Vec<Secret> = found.iter().map(rows::secret).collect::<Result<_, _>>()?;
        Ok(Page { has_more: (rows.len() as u64) < total_count, rows, total_count })
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

    async fn longest_binding(
        &self,
        account: &AccountId,
        id: &SecretId,
    ) -> Result<Option<String>, StoreError> {
        let query = sqlx::query(
            "SELECT env FROM bindings JOIN devboxes ON devboxes.id = bindings.devbox_id
             WHERE secret_id = ? AND account_id = ? AND status = 'running' ORDER BY length(env) DESC LIMIT 1",
        );
        let row = query.bind(id.as_str()).bind(account.as_str()).fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

async fn next_version(
    write: &mut SqliteConnection,
    account: &AccountId,
    id: &SecretId,
) -> Result<Option<u64>, StoreError> {
    let query = sqlx::query("SELECT version + 1 FROM secrets WHERE account_id = ? AND id = ?");
    let row = query.bind(account.as_str()).bind(id.as_str()).fetch_optional(write).await?;
    row.map(|row| rows::unsigned(row.try_get(0)?)).transpose()
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
