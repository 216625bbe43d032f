//! The registry's use of the master key: account keys are unwrapped under it, and a rotation is
//! followed or made.

use std::sync::Arc;

use super::{AccountId, Caller, Refusal, Registry, open};
use crate::crypto::{AccountKey, CryptoError, MasterKey};
use crate::pki::CA_KEY_PURPOSE;
use crate::store::{AuditRecord, MetaKey, StoreError, Wrapped};

impl Registry {
    /// The master key that `record` is under.
    pub(super) fn master_of(&self, record: &[u8]) -> Result<Arc<MasterKey>, CryptoError> {
        self.0.keyring.of(record).ok_or(CryptoError::Open)
    }

    pub(super) async fn account_key(&self, caller: &Caller) -> Result<AccountKey, Refusal> {
        self.unwrapped(caller.account(), &caller.row().wrapped_key).await
    }

    /// As [`Self::account_key`], after a re-key too that the caller's request has overtaken.
    pub(super) async fn current_account_key(&self, caller: &Caller) -> Result<AccountKey, Refusal> {
        let row = self.store().account(caller.account()).await?;
        let row = row.ok_or_else(|| Refusal::internal("an account that was there is missing"))?;
        self.unwrapped(caller.account(), &row.wrapped_key).await
    }

    /// An account's key from its record, which may have been read before a rotation.
    pub(super) async fn unwrapped(&self, account: &AccountId, record: &[u8]) -> Result<AccountKey, Refusal> {
        if let Some(master) = self.0.keyring.of(record) {
            return Ok(master.account_key(account, record)?);
        }
        let row = self.store().account(account).await?;
        let row = row.ok_or_else(|| Refusal::internal("an account that was there is missing"))?;
        let master = self.0.keyring.of(&row.wrapped_key).ok_or(CryptoError::Open)?;
        Ok(master.account_key(account, &row.wrapped_key)?)
    }

    /// Follows a rotation if there was one. Without the new key every request that needs a key
    /// fails.
    pub(super) async fn follow_rotation(&self) -> Result<(), StoreError> {
        if let Some(check) = self.store().meta(MetaKey::KeyCheck).await?
            && self.0.keyring.of(&check).is_none()
        {
            tracing::error!(
                "the state is under another master key than this server has: restart it with that key"
            );
        }
        Ok(())
    }

    /// Whether the state is under `key`.
    pub(crate) async fn is_under(&self, key: &MasterKey) -> Result<bool, Refusal> {
        Ok(self.store().meta(MetaKey::KeyCheck).await?.is_some_and(|check| key.has_wrapped(&check)))
    }

    /// Wraps every account's key and the devbox CAs' under `new`, all or none; returns how many
    /// records that are. Other programs have to be able to find `new` before this call.
    pub(crate) async fn rewrap_all(&self, new: &MasterKey, audit: &AuditRecord) -> Result<u64, Refusal> {
        let old = self.0.keyring.current();
        let rewrap = |place: Wrapped<'_>, record: &[u8]| match place {
            Wrapped::Account(account) => old.rewrap_account_key(account, record, new),
            Wrapped::Authority => old.rewrap(CA_KEY_PURPOSE, record, new),
            Wrapped::KeyCheck => old.rewrap(open::KEY_CHECK_PURPOSE, record, new),
        };
        Ok(self.store().rewrap(&rewrap, audit).await?)
    }
}
