//! Waking held bundle requests: by this process's writes at once, by others' when the store notices them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Registry;
use crate::crypto::id::AccountId;

/// How long to wait before looking again after the store failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The newest known revision of each account that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<HashMap<AccountId, watch::Sender<u64>>>);

impl Changes {
    /// Follows an account's revision. What it first shows may be older than the store's.
    pub(super) fn subscribe(&self, account: &AccountId) -> watch::Receiver<u64> {
        let mut accounts = self.accounts();
        accounts.entry(account.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Announces a revision; older ones are passed over.
    pub(super) fn publish(&self, account: &AccountId, revision: u64) {
        if let Some(sender) = self.accounts().get(account) {
            sender.send_if_modified(|known| {
                let is_newer = revision > *known;
                *known = revision.max(*known);
                is_newer
            });
        }
    }

    /// The accounts that somebody waits for; the others are forgotten.
    fn waited_for(&self) -> Vec<AccountId> {
        let mut accounts = self.accounts();
        accounts.retain(|_, sender| sender.receiver_count() > 0);
        accounts.keys().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn is_waited_for(&self, account: &AccountId) -> bool {
        self.accounts().get(account).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// A panic while the lock was held leaves the map whole: each use of it is one insertion or removal.
    fn accounts(&self) -> MutexGuard<'_, HashMap<AccountId, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Notices other processes' writes for as long as it is polled; it never returns. Run one of it for the whole server.
    pub async fn watch(&self) {
        loop {
            if let Err(error) = self.publish_others_writes().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for changes; held requests may answer late"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn publish_others_writes(&self) -> Result<(), crate::store::StoreError> {
        self.store().changed().await?;
        for account in self.0.changes.waited_for() {
            let revision = self.store().revision(&account).await?;
            self.0.changes.publish(&account, revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_see_newer_revisions_only() {
        let (changes, account) = (Changes::default(), AccountId::new("acc_1"));
        let mut follower = changes.subscribe(&account);
        changes.publish(&account, 5);
        changes.publish(&account, 4);
        assert_eq!(*follower.borrow_and_update(), 5);
        changes.publish(&AccountId::new("acc_2"), 9);
        assert!(!follower.has_changed().unwrap());
    }

    #[test]
    fn accounts_that_nobody_waits_for_are_forgotten() {
        let (changes, account) = (Changes::default(), AccountId::new("acc_1"));
        let follower = changes.subscribe(&account);
        assert_eq!(changes.waited_for(), [account]);
        drop(follower);
        assert_eq!(changes.waited_for(), []);
        assert!(changes.accounts().is_empty());
    }
}
