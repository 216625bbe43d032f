//! Callers of the public API: an API token's account, or an operator on the server's machine.

use std::net::IpAddr;
use std::sync::Arc;

use devbox_secrets_proto::secret::SecretBytes;

use super::audit::Attempt;
use super::{Refusal, Registry, Retry};
use crate::clock::now_ms;
use crate::crypto::ApiToken;
use crate::crypto::id::{AccountId, TokenId};
use crate::store::{Account, Action, Actor, AuditRecord, Scope, Scopes, Token};

/// An authenticated caller, acting in one account.
#[derive(Debug, Clone)]
pub struct Caller {
    account: Account,
    actor: Actor,
    may_use_devboxes: bool,
    scopes: Scopes,
    remote: Option<IpAddr>,
    retry: Option<Arc<Retry>>,
}

impl Caller {
    pub(crate) fn account(&self) -> &AccountId {
        &self.account.id
    }

    /// The API token that the caller presented.
    pub(crate) fn token_id(&self) -> Option<&TokenId> {
        match &self.actor {
            Actor::Token(id) => Some(id),
            _ => None,
        }
    }

    /// Whether the caller's account may use the API.
    ///
    /// # Errors
    /// 403 without the devbox capability.
    pub(crate) fn check_devbox_capability(&self) -> Result<(), Refusal> {
        if self.may_use_devboxes {
            return Ok(());
        }
        Err(no_devbox_capability())
    }

    /// The same caller with an id for its one request: see [`Retry`].
    pub(crate) fn retrying(&self, retry: Retry) -> Self {
        Self { retry: Some(Arc::new(retry)), ..self.clone() }
    }

    pub(super) fn retry(&self) -> Option<&Retry> {
        self.retry.as_deref()
    }

    pub(super) fn row(&self) -> &Account {
        &self.account
    }

    pub(super) fn attempt(&self, action: Action, object: impl Into<String>) -> Attempt {
        Attempt {
            account: Some(self.account.id.clone()),
            actor: self.actor.clone(),
            action,
            object: object.into(),
            remote: self.remote,
        }
    }

    pub(super) fn done(&self, action: Action, object: impl Into<String>) -> AuditRecord {
        self.attempt(action, object).done()
    }
}

impl Registry {
    /// Authenticates an API token.
    ///
    /// # Errors
    /// 401 for a malformed, unknown, expired or revoked token; the last two are audited. 429 for a
    /// token that is used more often than its rate.
    pub async fn authenticate(
        &self,
        bearer: &SecretBytes,
        remote: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        let hash = ApiToken::hash_presented(bearer)
            .map_err(|error| Refusal::unauthenticated("invalid_token", error.to_string()))?;
        // The limit comes before the query: a token over its rate costs no database read.
        self.check_exhausted(hash)?;
        let Some((token, account)) = self.store().token_by_hash(hash).await? else {
            return Err(Refusal::unauthenticated("unknown_token", "this server knows no such API token"));
        };
        let actor = Actor::Token(token.id.clone());
        let may_use_devboxes = account.devbox_capability;
        let scopes = token.scopes;
        let caller = Caller { may_use_devboxes, account, actor, scopes, remote, retry: None };
        match usable(&token) {
            Ok(()) => self.check_request_rate(hash).map(|()| caller),
            Err(refusal) => self.refuse(caller.attempt(Action::TokenUse, token.id.as_str()), refusal).await,
        }
    }

    /// An operator acting in an account, given by name or id. Operators need no devbox capability,
    /// because they grant it.
    ///
    /// # Errors
    /// 404 if there is no such account.
    pub(crate) async fn operator(&self, user: &str, account: &str) -> Result<Caller, Refusal> {
        let account = self.find_account(account).await?;
        let actor = Actor::Operator(user.to_owned());
        let scopes = Scope::ALL.into_iter().collect();
        // Operators manage devboxes of accounts without the capability, too.
        Ok(Caller { account, actor, may_use_devboxes: true, scopes, remote: None, retry: None })
    }

    /// Whether the caller's token may be used for `scope`.
    ///
    /// # Errors
    /// 403, audited, which names the missing scope.
    pub(crate) async fn check_scope(&self, caller: &Caller, scope: Scope) -> Result<(), Refusal> {
        if caller.scopes.has(scope) {
            return Ok(());
        }
        let word = scope.as_str();
        let message =
            format!("the API token lacks the scope {word}: use one that was created with --scope {word}");
        let token = caller.token_id().map(ToString::to_string).unwrap_or_default();
        self.refuse(caller.attempt(Action::TokenUse, token), Refusal::forbidden("missing_scope", message))
            .await
    }

    /// Refuses, and audits it, if the caller lacks the devbox capability.
    pub(super) async fn check_capability(
        &self,
        caller: &Caller,
        action: Action,
        object: &str,
    ) -> Result<(), Refusal> {
        match caller.check_devbox_capability() {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse(caller.attempt(action, object), refusal).await,
        }
    }
}

pub(super) fn no_devbox_capability() -> Refusal {
    let message = "the account lacks the devbox capability: ask the server's operator to grant it";
    Refusal::forbidden("no_devbox_capability", message)
}

fn usable(token: &Token) -> Result<(), Refusal> {
    if token.revoke_time_ms.is_some() {
        return Err(Refusal::unauthenticated("revoked_token", "the API token was revoked: create a new one"));
    }
    if token.expire_time_ms.is_some_and(|expires| expires <= now_ms()) {
        return Err(Refusal::unauthenticated("expired_token", "the API token has expired: create a new one"));
    }
    Ok(())
}
