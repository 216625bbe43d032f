//! API tokens.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::{self, token_columns};
use super::{SqliteStore, budgets};
use crate::config::Limits;
use crate::crypto::TokenHash;
use crate::crypto::id::{AccountId, DevboxId, TokenId};
use crate::store::{Account, Accounts, AuditRecord, StoreError, TimeMs, Token, UsableToken};

pub(super) async fn insert(
    store: &SqliteStore,
    token: &Token,
    hash: TokenHash,
    limits: &Limits,
    audit: &AuditRecord,
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
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
    store.commit(write, audit).await
}

pub(super) async fn list(store: &SqliteStore, account: &AccountId) -> Result<Vec<Token>, StoreError> {
    const OF_ACCOUNT: &str = concat!(
        "SELECT ",
        token_columns!(),
        " FROM api_tokens WHERE account_id = ? ORDER BY create_time_ms, id"
    );
    let found = sqlx::query(OF_ACCOUNT).bind(account.as_str()).fetch_all(&store.readers).await?;
    found.iter().map(rows::token).collect()
}

pub(super) async fn revoke(
    store: &SqliteStore,
    account: &AccountId,
    id: &TokenId,
    audit: &AuditRecord,
) -> Result<Option<Token>, StoreError> {
    const REVOKE: &str = concat!(
        "UPDATE api_tokens SET revoke_time_ms = coalesce(revoke_time_ms, ?)
         WHERE account_id = ? AND id = ? RETURNING ",
        token_columns!()
    );
    let mut write = store.begin().await?;
    let query = sqlx::query(REVOKE).bind(audit.time_ms).bind(account.as_str()).bind(id.as_str());
    let Some(row) = query.fetch_optional(&mut *write).await? else {
        return Ok(None);
    };
    let token = rows::token(&row)?;
    store.commit(write, audit).await?;
    Ok(Some(token))
}

pub(super) async fn by_hash(
    store: &SqliteStore,
    hash: TokenHash,
) -> Result<Option<(Token, Account)>, StoreError> {
    const BY_HASH: &str = concat!("SELECT ", token_columns!(), " FROM api_tokens WHERE hash = ?");
    let row = sqlx::query(BY_HASH).bind(hash.as_bytes()).fetch_optional(&store.readers).await?;
    let Some(token) = row.as_ref().map(rows::token).transpose()? else {
        return Ok(None);
    };
    let account = store.account(&token.account).await?;
    Ok(account.map(|account| (token, account)))
}

pub(super) async fn usable(store: &SqliteStore, now_ms: TimeMs) -> Result<HashSet<UsableToken>, StoreError> {
    const USABLE: &str = "
        SELECT hash, NULL FROM api_tokens
        WHERE revoke_time_ms IS NULL AND (expire_time_ms IS NULL OR expire_time_ms > ?1)
        UNION ALL
        SELECT hash, devbox_id FROM join_tokens WHERE use_time_ms IS NULL AND expire_time_ms > ?1";
    let found = sqlx::query(USABLE).bind(now_ms).fetch_all(&store.readers).await?;
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
