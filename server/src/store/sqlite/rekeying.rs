//! Re-keying accounts.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::rows::{self, secret_columns};
use super::{SqliteStore, audit as audit_rows};
use crate::crypto::id::AccountId;
use crate::store::{AuditRecord, ChangeKey, Rekeying, ResealFor, Resealed, SealedSecret, StoreError};

/// Most values that are sealed anew in one transaction: 2 MiB of the largest.
const PAGE: u32 = 16;

#[async_trait]
impl Rekeying for SqliteStore {
    async fn begin_rekey(&self, account: &AccountId, change: &ChangeKey<'_>) -> Result<bool, StoreError> {
        const VOID: &str = "UPDATE join_tokens SET expire_time_ms = 0 WHERE use_time_ms IS NULL
            AND devbox_id IN (SELECT id FROM devboxes WHERE account_id = ?)";
        let mut write = self.begin().await?;
        if !change_key(&mut write, account, change).await? {
            return Ok(false);
        }
        // Unused join tokens are derived from the old key, so a thief of that key can compute them.
        sqlx::query(VOID).bind(account.as_str()).execute(&mut *write).await?;
        write.commit().await?;
        Ok(true)
    }

    async fn reseal_secrets(
        &self,
        account: &AccountId,
        after: &str,
        reseal: &ResealFor<'_>,
    ) -> Result<Option<Resealed>, StoreError> {
        let mut write = self.begin().await?;
        let key = wrapped_key(&mut write, account).await?;
        // The page is read in the transaction of the write, so no concurrent update is overwritten.
        let page = page(&mut write, account, after).await?;
        let Some(last) = page.last().map(|secret| secret.secret.name.clone()) else { return Ok(None) };
        let mut count = 0;
        for secret in page {
            let id = secret.secret.id.clone();
            if let Some(sealed) = reseal(&key, secret).map_err(StoreError::Seal)? {
                let update = sqlx::query("UPDATE secrets SET sealed = ? WHERE id = ?").bind(sealed);
                count += update.bind(id.as_str()).execute(&mut *write).await?.rows_affected();
            }
        }
        write.commit().await?;
        Ok(Some(Resealed { last, count }))
    }

    async fn end_rekey(
        &self,
        account: &AccountId,
        change: &ChangeKey<'_>,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        change_key(&mut write, account, change).await?;
        audit_rows::insert(&mut write, audit).await?;
        write.commit().await?;
        // The old key and what was under it leave the log too.
        self.checkpoint_if_possible().await;
        Ok(())
    }
}

async fn change_key(
    write: &mut SqliteConnection,
    account: &AccountId,
    change: &ChangeKey<'_>,
) -> Result<bool, StoreError> {
    let wrapped = wrapped_key(write, account).await?;
    let Some(changed) = change(&wrapped).map_err(StoreError::Seal)? else { return Ok(false) };
    let update = sqlx::query("UPDATE accounts SET wrapped_key = ? WHERE id = ?").bind(changed);
    update.bind(account.as_str()).execute(write).await?;
    Ok(true)
}

/// Read in the transaction of a write, so that a value is never sealed under a key that the account
/// no longer has.
pub(super) async fn wrapped_key(
    write: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Vec<u8>, StoreError> {
    let query = sqlx::query("SELECT wrapped_key FROM accounts WHERE id = ?").bind(account.as_str());
    Ok(query.fetch_one(write).await?.try_get(0)?)
}

async fn page(
    write: &mut SqliteConnection,
    account: &AccountId,
    after: &str,
) -> Result<Vec<SealedSecret>, StoreError> {
    const PAGE_AFTER: &str = concat!(
        "SELECT ",
        secret_columns!(),
        ", sealed FROM secrets WHERE account_id = ? AND name > ? ORDER BY name LIMIT ?"
    );
    let query = sqlx::query(PAGE_AFTER).bind(account.as_str()).bind(after).bind(PAGE);
    query.fetch_all(write).await?.iter().map(rows::sealed_secret).collect()
}
