//! Accounts: for operators only.

use serde::Serialize;

use super::audit::Attempt;
use super::{Refusal, Registry, limits};
use crate::clock::now_ms;
use crate::crypto::ApiToken;
use crate::crypto::id::AccountId;
use crate::store::{Account, Action, Actor, Scopes, StoreError, TimeMs};

/// The account that `dev` works in.
const DEVELOPMENT_ACCOUNT: &str = "dev";

/// The name of the tokens that `dev` makes.
const DEVELOPMENT_TOKEN: &str = "dev";

/// An account, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Its identifier.
    pub id: AccountId,
    pub(crate) name: String,
    pub(crate) devbox_capability: bool,
    pub(crate) create_time_ms: TimeMs,
}

/// The account and token that `dev` prints.
#[derive(Debug)]
pub struct DevelopmentAccount {
    /// The account; the same at each start.
    pub account: AccountView,
    /// A new token.
    pub token: ApiToken,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        let Account { id, name, devbox_capability, create_time_ms, .. } = account;
        Self { id, name, devbox_capability, create_time_ms }
    }
}

impl Registry {
    /// Creates an account with a key of its own.
    ///
    /// # Errors
    /// 400 for a bad or taken name.
    pub(crate) async fn create_account(
        &self,
        actor: &Actor,
        name: &str,
        devbox_capability: bool,
    ) -> Result<AccountView, Refusal> {
        limits::text("an account's name", name)?;
        match self.insert_account(actor, name, devbox_capability).await {
            // Another process has rotated the master key. One retry with the new key is enough,
            // because rotations are rare.
            Err(StoreError::Rotated) => {
                self.follow_rotation().await?;
                self.insert_account(actor, name, devbox_capability).await
            }
            inserted => inserted,
        }
        .map_err(|error| match error {
            StoreError::Taken => Refusal::invalid("name_taken", format!("there is an account {name}")),
            other => other.into(),
        })
    }

    async fn insert_account(
        &self,
        actor: &Actor,
        name: &str,
        devbox_capability: bool,
    ) -> Result<AccountView, StoreError> {
        let id = AccountId::generate().map_err(StoreError::Seal)?;
        let wrapped_key = self.0.keyring.current().new_account_key(&id).map_err(StoreError::Seal)?;
        let name = name.to_owned();
        let account = Account { id, name, wrapped_key, devbox_capability, create_time_ms: now_ms() };
        let audit = attempt(actor, &account.id, Action::AccountCreate).done().named(&account.name);
        self.store().insert_account(&account, &audit).await?;
        Ok(account.into())
    }

    /// All accounts, by name.
    pub(crate) async fn list_accounts(&self) -> Result<Vec<AccountView>, Refusal> {
        Ok(self.store().accounts().await?.into_iter().map(AccountView::from).collect())
    }

    /// One account, by name or id.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn account(&self, name_or_id: &str) -> Result<AccountView, Refusal> {
        Ok(self.find_account(name_or_id).await?.into())
    }

    /// Grants or withdraws an account's devbox capability.
    ///
    /// # Errors
    /// 404.
    pub async fn set_devbox_capability(
        &self,
        actor: &Actor,
        account: &str,
        granted: bool,
    ) -> Result<AccountView, Refusal> {
        let account = self.find_account(account).await?;
        let facts = if granted { "granted" } else { "withdrawn" };
        let audit =
            attempt(actor, &account.id, Action::AccountCapability).done().named(&account.name).because(facts);
        if let Some(wakes) = self.store().set_devbox_capability(&account.id, granted, &audit).await? {
            self.0.changes.publish(&account.id, wakes);
        }
        Ok(AccountView { devbox_capability: granted, ..account.into() })
    }

    /// The account that `dev` works in, created if it is absent, and a new token for it. The
    /// previous start's token stays valid, so that clients survive a restart; older ones are
    /// revoked.
    ///
    /// # Errors
    /// 500.
    pub async fn development_account(&self) -> Result<DevelopmentAccount, Refusal> {
        let account = match self.store().account_by_name(DEVELOPMENT_ACCOUNT).await? {
            Some(account) => account.into(),
            None => self.create_account(&Actor::Server, DEVELOPMENT_ACCOUNT, true).await?,
        };
        self.revoke_old_development_tokens(&account).await?;
        let id = account.id.as_str();
        let scopes = Scopes::default();
        let (_, token) = self.create_token(&Actor::Server, id, DEVELOPMENT_TOKEN, None, scopes).await?;
        Ok(DevelopmentAccount { account, token })
    }

    async fn revoke_old_development_tokens(&self, account: &AccountView) -> Result<(), Refusal> {
        let tokens = self.store().tokens(&account.id).await?;
        let valid =
            tokens.iter().filter(|token| token.name == DEVELOPMENT_TOKEN && token.revoke_time_ms.is_none());
        for token in valid.rev().skip(1) {
            self.revoke_token(&Actor::Server, account.id.as_str(), token.id.as_str()).await?;
        }
        Ok(())
    }

    pub(super) async fn find_account(&self, name_or_id: &str) -> Result<Account, Refusal> {
        // Identifiers come first: an account that is named like another one's id does not shadow
        // it.
        if let Some(account) = self.store().account(&AccountId::new(name_or_id)).await? {
            return Ok(account);
        }
        let by_name = self.store().account_by_name(name_or_id).await?;
        by_name.ok_or_else(|| Refusal::not_found(format!("there is no account {name_or_id:.80}")))
    }
}

fn attempt(actor: &Actor, account: &AccountId, action: Action) -> Attempt {
    let (account, object) = (Some(account.clone()), account.to_string());
    Attempt { account, actor: actor.clone(), action, object, remote: None }
}
