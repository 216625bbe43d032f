//! Join tokens after the first one: a devbox joins anew, after a snapshot or the loss of its
//! certificate. Redeeming one revokes every earlier certificate of the devbox.

use devbox_secrets_proto::join_token::JoinToken;

use super::devboxes::JOIN_TOKEN_LIFETIME_MS;
use super::peer::shut_down;
use super::{Caller, Refusal, Registry};
use crate::crypto::id::{DevboxId, JoinTokenId};
use crate::store::{Action, DevboxStatus, JoinGrant, JoinTokenIssue};

impl Registry {
    /// Makes a new join token for a devbox of the caller's account, in place of its last one: valid
    /// once, for [`JOIN_TOKEN_LIFETIME_MS`] from the first try. Once it is redeemed, every earlier
    /// certificate of the devbox has ended.
    ///
    /// # Errors
    /// 403 if the devbox is shut down or without the devbox capability, 404.
    pub(crate) async fn new_join_token(&self, caller: &Caller, id: &str) -> Result<JoinToken, Refusal> {
        let id = DevboxId::new(id);
        let issue: JoinTokenIssue =
            self.once(caller, Action::DevboxJoinToken, self.replace_join_token(caller, &id)).await?;
        let key = self.current_account_key(caller).await?;
        let secret = key.later_join_secret(&issue.devbox, &issue.id);
        JoinToken::new(issue.devbox.as_str(), secret.into_secret(), *self.ca().fingerprint())
            .map_err(Refusal::internal)
    }

    /// An operator acting in the account of a devbox.
    ///
    /// # Errors
    /// 404 if there is no such devbox.
    pub(crate) async fn operator_of(&self, user: &str, devbox: &str) -> Result<Caller, Refusal> {
        let owner = self.store().devbox_owner(&DevboxId::new(devbox)).await?;
        let (account, _) = owner.ok_or_else(|| {
            Refusal::not_found("there is no such devbox: list an account's devboxes for their ids")
        })?;
        self.operator(user, account.as_str()).await
    }

    async fn replace_join_token(&self, caller: &Caller, id: &DevboxId) -> Result<JoinTokenIssue, Refusal> {
        self.check_capability(caller, Action::DevboxJoinToken, "").await?;
        let devbox = self.find_devbox(caller, id).await?;
        if devbox.status == DevboxStatus::Shutdown {
            return Err(shut_down());
        }
        let issue = JoinTokenIssue { id: JoinTokenId::generate()?, devbox: devbox.id };
        let audit = caller.done(Action::DevboxJoinToken, id.as_str()).because(issue.id.as_str());
        let audit = match &devbox.name {
            Some(name) => audit.named(name),
            None => audit,
        };
        let expire_time_ms = audit.time_ms.saturating_add(JOIN_TOKEN_LIFETIME_MS);
        let grant = |wrapped: &[u8]| {
            let key = self.key_of(caller.account(), wrapped)?;
            Ok(JoinGrant { hash: key.later_join_secret(&issue.devbox, &issue.id).hash(), expire_time_ms })
        };
        let request = self.request_key(caller).await?;
        match self.store().replace_join(caller.account(), &issue, &grant, &audit, request.as_ref()).await? {
            true => Ok(issue),
            false => Err(shut_down()),
        }
    }
}
