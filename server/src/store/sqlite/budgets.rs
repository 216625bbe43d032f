//! Whether a write stays within the account's budgets. Triggers keep the counts (migration 4), so
//! that a check reads one row; it comes after the write and before the commit.

use devbox_secrets_proto::name::max_value_len;
use sqlx::{Row, SqliteConnection};

use super::rows;
use crate::config::Limits;
use crate::crypto::id::{AccountId, DevboxId, SecretId};
use crate::crypto::sealed_len;
use crate::store::{Budget, Devbox, StoreError, TimeMs};

struct Usage {
    secrets: u64,
    value_bytes: u64,
    /// A bundle of every secret.
    every_bytes: u64,
    running_devboxes: u64,
    has_every: bool,
}

async fn usage(write: &mut SqliteConnection, account: &AccountId) -> Result<Usage, StoreError> {
    let query = sqlx::query(
        "SELECT secret_count, value_bytes, every_bytes, running_devboxes, every_devboxes > 0
         FROM accounts WHERE id = ?",
    );
    let row = query.bind(account.as_str()).fetch_one(write).await?;
    Ok(Usage {
        secrets: rows::unsigned(row.try_get(0)?)?,
        value_bytes: rows::unsigned(row.try_get(1)?)?,
        every_bytes: rows::unsigned(row.try_get(2)?)?,
        running_devboxes: rows::unsigned(row.try_get(3)?)?,
        has_every: row.try_get(4)?,
    })
}

fn within(used: u64, limit: u64, budget: Budget) -> Result<(), StoreError> {
    if used > limit { Err(StoreError::OverBudget(budget)) } else { Ok(()) }
}

/// After a secret was added.
pub(super) async fn check_new_secret(
    write: &mut SqliteConnection,
    account: &AccountId,
    limits: &Limits,
) -> Result<(), StoreError> {
    let usage = usage(write, account).await?;
    within(usage.secrets, limits.secrets, Budget::Secrets)?;
    check_values(&usage, limits)
}

/// After a value of a secret was replaced by a longer one. A shorter one always fits.
pub(super) async fn check_longer_value(
    write: &mut SqliteConnection,
    account: &AccountId,
    secret: &SecretId,
    limits: &Limits,
) -> Result<(), StoreError> {
    check_values(&usage(write, account).await?, limits)?;
    let query = sqlx::query(
        "SELECT 1 FROM bindings JOIN devboxes ON devboxes.id = bindings.devbox_id
         WHERE secret_id = ? AND account_id = ? AND status = 'running' AND bundle_bytes > ? LIMIT 1",
    );
    let query = query.bind(secret.as_str()).bind(account.as_str()).bind(rows::signed(limits.bundle_bytes)?);
    match query.fetch_optional(write).await? {
        Some(_) => Err(StoreError::OverBudget(Budget::BundleBytes)),
        None => Ok(()),
    }
}

fn check_values(usage: &Usage, limits: &Limits) -> Result<(), StoreError> {
    within(usage.value_bytes, limits.value_bytes, Budget::ValueBytes)?;
    let every = if usage.has_every { usage.every_bytes } else { 0 };
    within(every, limits.bundle_bytes, Budget::BundleBytes)
}

/// After a devbox was added with its bindings.
pub(super) async fn check_new_devbox(
    write: &mut SqliteConnection,
    account: &AccountId,
    devbox: &Devbox,
    limits: &Limits,
) -> Result<(), StoreError> {
    let usage = usage(write, account).await?;
    within(usage.running_devboxes, limits.devboxes, Budget::Devboxes)?;
    let bundle_bytes = match devbox.bindings {
        None => usage.every_bytes,
        Some(_) => bundle_bytes(write, &devbox.id).await?,
    };
    within(bundle_bytes, limits.bundle_bytes, Budget::BundleBytes)?;
    check_bound_lengths(write, &devbox.id).await
}

async fn bundle_bytes(write: &mut SqliteConnection, devbox: &DevboxId) -> Result<u64, StoreError> {
    let query = sqlx::query("SELECT bundle_bytes FROM devboxes WHERE id = ?").bind(devbox.as_str());
    rows::unsigned(query.fetch_one(write).await?.try_get(0)?)
}

/// The value that leaves the least room under its environment name has to fit there.
async fn check_bound_lengths(write: &mut SqliteConnection, devbox: &DevboxId) -> Result<(), StoreError> {
    let query = sqlx::query(
        "SELECT env, length(sealed) FROM bindings JOIN secrets ON secrets.id = bindings.secret_id
         WHERE devbox_id = ? ORDER BY length(env) + length(sealed) DESC LIMIT 1",
    );
    match query.bind(devbox.as_str()).fetch_optional(write).await? {
        Some(row) => check_length(row.try_get(0)?, rows::unsigned(row.try_get(1)?)?),
        None => Ok(()),
    }
}

/// Before a value of `sealed_bytes` takes its place: it has to fit under every name that running
/// devboxes have for it.
pub(super) async fn check_fits_bindings(
    write: &mut SqliteConnection,
    account: &AccountId,
    secret: &SecretId,
    sealed_bytes: usize,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "SELECT env FROM bindings JOIN devboxes ON devboxes.id = bindings.devbox_id
         WHERE secret_id = ? AND account_id = ? AND status = 'running' ORDER BY length(env) DESC LIMIT 1",
    );
    match query.bind(secret.as_str()).bind(account.as_str()).fetch_optional(write).await? {
        Some(row) => check_length(row.try_get(0)?, sealed_bytes as u64),
        None => Ok(()),
    }
}

fn check_length(env: String, sealed_bytes: u64) -> Result<(), StoreError> {
    let len = usize::try_from(sealed_bytes).unwrap_or(usize::MAX).saturating_sub(sealed_len(0));
    if len > max_value_len(&env) { Err(StoreError::TooLongFor { env, len }) } else { Ok(()) }
}

/// After a token was added: those that are neither revoked nor expired count.
pub(super) async fn check_new_token(
    write: &mut SqliteConnection,
    account: &AccountId,
    limits: &Limits,
    now_ms: TimeMs,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "SELECT count(*) FROM api_tokens WHERE account_id = ? AND revoke_time_ms IS NULL
         AND (expire_time_ms IS NULL OR expire_time_ms > ?)",
    );
    let row = query.bind(account.as_str()).bind(now_ms).fetch_one(write).await?;
    within(rows::unsigned(row.try_get(0)?)?, limits.tokens, Budget::Tokens)
}
