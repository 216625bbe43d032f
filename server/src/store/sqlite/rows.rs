//! From rows to the model's types.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::crypto::id::{AccountId, SecretId, TokenId};
use crate::store::{Account, DevboxStatus, SealedSecret, Secret, StoreError, Token};

/// Columns for [`account`].
macro_rules! account_columns {
    () => {
        "accounts.id, accounts.name, accounts.wrapped_key, accounts.devbox_capability, accounts.create_time_ms"
    };
}

/// Columns for [`secret`].
macro_rules! secret_columns {
    () => {
        "secrets.id, secrets.name, secrets.version, secrets.create_time_ms, secrets.update_time_ms"
    };
}

/// Columns for [`token`].
macro_rules! token_columns {
    () => {
        "id, account_id, name, create_time_ms, expire_time_ms, revoke_time_ms, scopes"
    };
}

pub(super) use {account_columns, secret_columns, token_columns};

pub(super) fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId::new(row.try_get::<String, _>("id")?),
        name: row.try_get("name")?,
        wrapped_key: row.try_get("wrapped_key")?,
        devbox_capability: row.try_get("devbox_capability")?,
        create_time_ms: row.try_get("create_time_ms")?,
    })
}

pub(super) fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    Ok(Token {
        id: TokenId::new(row.try_get::<String, _>("id")?),
        account: AccountId::new(row.try_get::<String, _>("account_id")?),
        name: row.try_get("name")?,
        create_time_ms: row.try_get("create_time_ms")?,
        expire_time_ms: row.try_get("expire_time_ms")?,
        revoke_time_ms: row.try_get("revoke_time_ms")?,
        scopes: row
            .try_get::<&str, _>("scopes")?
            .parse()
            .map_err(|_| StoreError::Damaged("a token's scopes"))?,
    })
}

pub(super) fn secret(row: &SqliteRow) -> Result<Secret, StoreError> {
    Ok(Secret {
        id: SecretId::new(row.try_get::<String, _>("id")?),
        name: row.try_get("name")?,
        version: unsigned(row.try_get("version")?)?,
        create_time_ms: row.try_get("create_time_ms")?,
        update_time_ms: row.try_get("update_time_ms")?,
    })
}

pub(super) fn sealed_secret(row: &SqliteRow) -> Result<SealedSecret, StoreError> {
    Ok(SealedSecret { secret: secret(row)?, sealed: row.try_get("sealed")? })
}

pub(super) fn status(text: &str) -> Result<DevboxStatus, StoreError> {
    match text {
        "running" => Ok(DevboxStatus::Running),
        "shutdown" => Ok(DevboxStatus::Shutdown),
        _ => Err(StoreError::Damaged("a devbox's status")),
    }
}

/// SQLite's integers are signed; versions, revisions and counts never are.
pub(super) fn unsigned(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| StoreError::Damaged("a negative count"))
}

pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Damaged("a count beyond 2^63"))
}
