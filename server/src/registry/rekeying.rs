//! New keys for accounts, beside a running server. `keys rotate` alone wraps the same account keys
//! again, so a thief of the master key and the database could open all later values too.
//!
//! For each account: its record gets a new key beside the old one, its values are sealed anew page
//! by page, and the record loses the old key. A value is sealed under the key that the account has
//! in the same transaction, so none is left behind. Running it again continues an interrupted run.

use super::audit::Attempt;
use super::{Actor, Refusal, Registry};
use crate::crypto::id::AccountId;
use crate::crypto::{AccountKey, CryptoError, ValueLocation};
use crate::store::{Action, Resealed, SealedSecret};

impl Registry {
    /// Gives every account a new key; returns how many accounts and how many values that were.
    ///
    /// # Errors
    /// 500; running it again continues.
    pub(crate) async fn rekey_all(&self, actor: &Actor) -> Result<(usize, u64), Refusal> {
        let accounts = self.store().accounts().await?;
        let mut values = 0;
        for account in &accounts {
            values += self.rekey(actor, &account.id).await?;
        }
        Ok((accounts.len(), values))
    }

    async fn rekey(&self, actor: &Actor, account: &AccountId) -> Result<u64, Refusal> {
        self.begin_rekey(account).await?;
        let count = self.reseal_all(account).await?;
        let attempt = Attempt {
            account: Some(account.clone()),
            actor: actor.clone(),
            action: Action::KeysRekey,
            object: account.to_string(),
            remote: None,
        };
        let audit = attempt.done().because(format!("{count} values"));
        let change = |wrapped: &[u8]| self.master_of(wrapped)?.end_rekey(account, wrapped);
        self.store().end_rekey(account, &change, &audit).await?;
        Ok(count)
    }

    pub(super) async fn begin_rekey(&self, account: &AccountId) -> Result<bool, Refusal> {
        let change = |wrapped: &[u8]| self.master_of(wrapped)?.begin_rekey(account, wrapped);
        Ok(self.store().begin_rekey(account, &change).await?)
    }

    async fn reseal_all(&self, account: &AccountId) -> Result<u64, Refusal> {
        let mut after = String::new();
        let mut count = 0;
        while let Some(page) = self.reseal_page(account, &after).await? {
            after = page.last;
            count += page.count;
        }
        Ok(count)
    }

    pub(super) async fn reseal_page(
        &self,
        account: &AccountId,
        after: &str,
    ) -> Result<Option<Resealed>, Refusal> {
        let reseal = |wrapped: &[u8], SealedSecret { secret, sealed }: SealedSecret| {
            let location = ValueLocation { secret: &secret.id, version: secret.version };
            self.key_of(account, wrapped)?.reseal(location, sealed)
        };
        Ok(self.store().reseal_secrets(account, after, &reseal).await?)
    }

    /// An account's key from its record.
    pub(super) fn key_of(&self, account: &AccountId, wrapped: &[u8]) -> Result<AccountKey, CryptoError> {
        self.master_of(wrapped)?.account_key(account, wrapped)
    }
}
