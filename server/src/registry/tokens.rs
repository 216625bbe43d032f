//! API tokens: for operators only. A token is shown once and stored as a hash.

use serde::Serialize;

use super::audit::Attempt;
use super::{Refusal, Registry, limits};
use crate::clock::now_ms;
use crate::crypto::ApiToken;
use crate::crypto::id::TokenId;
use crate::store::{Action, Actor, Scopes, TimeMs, Token};

/// An API token, for people: everything but the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenView {
    pub(crate) id: TokenId,
    pub(crate) name: String,
    pub(crate) create_time_ms: TimeMs,
    /// Its expiry. `None` if it never expires.
    pub(crate) expire_time_ms: Option<TimeMs>,
    pub(crate) revoke_time_ms: Option<TimeMs>,
    pub(crate) scopes: Scopes,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let Token { id, name, create_time_ms, expire_time_ms, revoke_time_ms, scopes, .. } = token;
        Self { id, name, create_time_ms, expire_time_ms, revoke_time_ms, scopes }
    }
}

impl Registry {
    /// Creates an API token for an account, given by name or id. It is refused from
    /// `expire_time_ms` on.
    ///
    /// # Errors
    /// 400 for a bad name, 404 for an unknown account.
    pub async fn create_token(
        &self,
        actor: &Actor,
        account: &str,
        name: &str,
        expire_time_ms: Option<TimeMs>,
        scopes: Scopes,
    ) -> Result<(TokenView, ApiToken), Refusal> {
        limits::text("a token's name", name)?;
        let account = self.find_account(account).await?.id;
        let id = TokenId::generate()?;
        let secret = ApiToken::generate()?;
        let name = name.to_owned();
        let token = Token {
            id,
            account,
            name,
            create_time_ms: now_ms(),
            expire_time_ms,
            revoke_time_ms: None,
            scopes,
        };
        let audit = attempt(actor, &token.account, &token.id, Action::TokenCreate).done().named(&token.name);
        let audit = audit.because(scopes.to_string());
        let inserted = self.store().insert_token(&token, secret.hash(), &self.limits(), &audit).await;
        inserted.map_err(|error| self.write_refusal(error))?;
        Ok((token.into(), secret))
    }

    /// An account's tokens, oldest first.
    ///
    /// # Errors
    /// 404 for an unknown account.
    pub(crate) async fn list_tokens(&self, account: &str) -> Result<Vec<TokenView>, Refusal> {
        let account = self.find_account(account).await?.id;
        Ok(self.store().tokens(&account).await?.into_iter().map(TokenView::from).collect())
    }

    /// Revokes a token at once and for good.
    ///
    /// # Errors
    /// 404 if the account has no such token.
    pub(crate) async fn revoke_token(
        &self,
        actor: &Actor,
        account: &str,
        id: &str,
    ) -> Result<TokenView, Refusal> {
        let account = self.find_account(account).await?.id;
        let id = TokenId::new(id);
        let audit = attempt(actor, &account, &id, Action::TokenRevoke).done();
        let revoked = self.store().revoke_token(&account, &id, &audit).await?;
        revoked
            .map(TokenView::from)
            .ok_or_else(|| Refusal::not_found("the account has no such API token: see `token list`"))
    }
}

fn attempt(actor: &Actor, account: &super::AccountId, token: &TokenId, action: Action) -> Attempt {
    let account = Some(account.clone());
    let object = token.to_string();
    Attempt { account, actor: actor.clone(), action, object, remote: None }
}
