//! Accounts and their API tokens.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::{self, account_columns, token_columns};
use super::{SqliteStore, budgets};
use crate::config::Limits;
use crate::crypto::id::{AccountId, DevboxId, TokenId};
use crate::crypto::{MASTER_KEY_ID_LEN, TokenHash};
use crate::store::{Account, Accounts, AuditRecord, MetaKey, StoreError, TimeMs, Token, UsableToken};

#[async_trait]
impl Accounts for SqliteStore {
    async fn insert_account(&self, account: &Account, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        // The insert itself compares the master key's id. A rotation between wrapping and writing
        // would otherwise leave a key that no master key opens.
        let inserted = sqlx::query(
            "INSERT INTO accounts (id, name, wrapped_key, devbox_capability, create_time_ms)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS
             (SELECT 1 FROM meta WHERE key = ?6 AND substr(value, 1, ?7) <> substr(?3, 1, ?7))",
        )
        .bind(account.id.as_str())
        .bind(&account.name)
        .bind(&account.wrapped_key)
        .bind(account.devbox_capability)
        .bind(account.create_time_ms)
        .bind(MetaKey::KeyCheck.as_str())
        .bind(MASTER_KEY_ID_LEN)
        .execute(&mut *write)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(StoreError::Rotated);
        }
        self.commit(write, audit).await
    }

    async fn account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        const BY_ID: &str = concat!("SELECT ", account_columns!(), " FROM accounts WHERE id = ?");
        let row = sqlx::query(BY_ID).bind(id.as_str()).fetch_optional(&self.readers).await?;
        row.as_ref().map(rows::account).transpose()
    }

    async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        const BY_NAME: &str = concat!("SELECT ", account_columns!(), " FROM accounts WHERE name = ?");
        let row = sqlx::query(BY_NAME).bind(name).fetch_optional(&self.readers).await?;
        row.as_ref().map(rows::account).transpose()
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        const ALL: &str = concat!("SELECT ", account_columns!(), " FROM accounts ORDER BY name");
        let all = sqlx::query(ALL).fetch_all(&self.readers).await?;
        all.iter().map(rows::account).collect()
    }

    async fn set_devbox_capability(
        &self,
        id: &AccountId,
        granted: bool,
        audit: &AuditRecord,
    ) -> Result<Option<u64>, StoreError> {
        let mut write = self.begin().await?;
        let update = sqlx::query("UPDATE accounts SET devbox_capability = ? WHERE id = ?");
        let updated = update.bind(granted).bind(id.as_str()).execute(&mut *write).await?;
        if updated.rows_affected() == 0 {
            return Ok(None);
        }
        // Held requests query again, so that a withdrawal stops deliveries at once.
        self.commit_wake(write, id, audit).await.map(Some)
    }

    async fn wakes(&self, ids: &[AccountId]) -> Result<Vec<(AccountId, u64)>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(AccountId::as_str).collect();
        let ids = serde_json::to_string(&ids).map_err(|_| StoreError::Damaged("a list of ids"))?;
        let query = sqlx::query(
            "SELECT accounts.id, wakes FROM json_each(?) AS one JOIN accounts ON accounts.id = one.value",
        );
        let found = query.bind(ids).fetch_all(&self.readers).await?;
        let row = |row: &SqliteRow| {
            Ok((AccountId::new(row.try_get::<String, _>(0)?), rows::unsigned(row.try_get(1)?)?))
        };
        found.iter().map(row).collect()
    }

    async fn insert_token(
        &self,
        token: &Token,
        hash: TokenHash,
        limits: &Limits,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query(
            "INSERT INTO api_tokens (id, account_id, hash, name, create_time_ms, expire_time_ms, revoke_time_ms, scopes)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(token.id.as_str())
        .bind(token.account.as_str())
        .bind(hash.as_bytes())
        .bind(&token.name)
        .bind(token.create_time_ms)
        .bind(token.expire_time_ms)
        .bind(token.revoke_time_ms)
        .bind(token.scopes.to_string())
        .execute(&mut *write)
        .await?;
        budgets::check_new_token(&mut write, &token.account, limits, audit.time_ms).await?;
        self.commit(write, audit).await
    }

    async fn tokens(&self, account: &AccountId) -> Result<Vec<Token>, StoreError> {
        const OF_ACCOUNT: &str = concat!(
            "SELECT ",
            token_columns!(),
            " FROM api_tokens WHERE account_id = ? ORDER BY create_time_ms, id"
        );
        let found = sqlx::query(OF_ACCOUNT).bind(account.as_str()).fetch_all(&self.readers).await?;
        found.iter().map(rows::token).collect()
    }

    async fn revoke_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        audit: &AuditRecord,
    ) -> Result<Option<Token>, StoreError> {
        const REVOKE: &str = concat!(
            "UPDATE api_tokens SET revoke_time_ms = coalesce(revoke_time_ms, ?)
             WHERE account_id = ? AND id = ? RETURNING ",
            token_columns!()
        );
        let mut write = self.begin().await?;
        let query = sqlx::query(REVOKE).bind(audit.time_ms).bind(account.as_str()).bind(id.as_str());
        let Some(row) = query.fetch_optional(&mut *write).await? else {
            return Ok(None);
        };
        let token = rows::token(&row)?;
        self.commit(write, audit).await?;
        Ok(Some(token))
    }

    async fn usable_tokens(&self, now_ms: TimeMs) -> Result<HashSet<UsableToken>, StoreError> {
        const USABLE: &str = "
            SELECT hash, NULL FROM api_tokens
            WHERE revoke_time_ms IS NULL AND (expire_time_ms IS NULL OR expire_time_ms > ?1)
            UNION ALL
            SELECT hash, devbox_id FROM join_tokens WHERE use_time_ms IS NULL AND expire_time_ms > ?1";
        let found = sqlx::query(USABLE).bind(now_ms).fetch_all(&self.readers).await?;
        let token = |row: &SqliteRow| {
            let hash = TokenHash::stored(row.try_get(0)?)
                .ok_or(StoreError::Damaged("a hash of a token has another length"))?;
            let devbox: Option<String> = row.try_get(1)?;
            Ok(match devbox {
                None => UsableToken::Api(hash),
                Some(devbox) => UsableToken::Join(DevboxId::new(devbox), hash),
            })
        };
        found.iter().map(token).collect()
    }

    async fn token_by_hash(&self, hash: TokenHash) -> Result<Option<(Token, Account)>, StoreError> {
        const BY_HASH: &str = concat!("SELECT ", token_columns!(), " FROM api_tokens WHERE hash = ?");
        let row = sqlx::query(BY_HASH).bind(hash.as_bytes()).fetch_optional(&self.readers).await?;
        let Some(token) = row.as_ref().map(rows::token).transpose()? else {
            return Ok(None);
        };
        let account = self.account(&token.account).await?;
        Ok(account.map(|account| (token, account)))
    }
}
