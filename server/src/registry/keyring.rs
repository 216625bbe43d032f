//! The master key in use. A rotation by another program is noticed and followed without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use super::{AccountId, Caller, Refusal, Registry, ca, open};
use crate::crypto::{AccountKey, CryptoError, MasterKey};
use crate::store::{AuditRecord, MetaKey, StoreError, Wrapped};

/// The one key that this process has.
#[derive(Debug)]
pub(super) struct Keyring(RwLock<Arc<MasterKey>>);

impl Keyring {
    pub(super) fn new(master: MasterKey) -> Self {
        Self(RwLock::new(Arc::new(master)))
    }

    pub(super) fn current(&self) -> Arc<MasterKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that `record` was wrapped under: this one, or that which a rotation has put in its place. The old one is
    /// forgotten then.
    pub(super) fn of(&self, record: &[u8]) -> Option<Arc<MasterKey>> {
        let current = self.current();
        if current.has_wrapped(record) {
            return Some(current);
        }
        let found = Arc::new(current.reload(record)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&found);
        tracing::info!("the master key was rotated: the new one is in use");
        Some(found)
    }
}

impl Registry {
    /// The master key that `record` is under.
    pub(super) fn master_of(&self, record: &[u8]) -> Result<Arc<MasterKey>, CryptoError> {
        self.0.keyring.of(record).ok_or(CryptoError::Open)
    }

    pub(super) async fn account_key(&self, caller: &Caller) -> Result<AccountKey, Refusal> {
        self.unwrapped(caller.account(), &caller.row().wrapped_key).await
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

    /// Follows a rotation, where there was one. Without the new key every request that needs a key fails.
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
    ///
    /// # Errors
    /// 500.
    pub(crate) async fn is_under(&self, key: &MasterKey) -> Result<bool, Refusal> {
        Ok(self.store().meta(MetaKey::KeyCheck).await?.is_some_and(|check| key.has_wrapped(&check)))
    }

    /// Wraps every account's key and the devbox CAs' under `new`, all or none; returns how many records that are. `new`
    /// has to be where other programs find it before.
    ///
    /// # Errors
    /// 500.
    pub(crate) async fn rewrap_all(&self, new: &MasterKey, audit: &AuditRecord) -> Result<u64, Refusal> {
        let old = self.0.keyring.current();
        let rewrap = |place: Wrapped<'_>, record: &[u8]| match place {
            Wrapped::Account(account) => old.rewrap_account_key(account, record, new),
            Wrapped::Authority => old.rewrap(ca::KEY_PURPOSE, record, new),
            Wrapped::KeyCheck => old.rewrap(open::KEY_CHECK_PURPOSE, record, new),
        };
        Ok(self.store().rewrap(&rewrap, audit).await?)
    }
}
