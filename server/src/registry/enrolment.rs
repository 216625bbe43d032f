//! A devbox's certificates: the first by join token, each later one by the certificate before it.

use std::net::IpAddr;

use devbox_secrets_proto::devbox::IssuedIdentity;
use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;

use super::audit::Attempt;
use super::caller::no_devbox_capability;
use super::peer::shut_down;
use super::{DevboxPeer, Refusal, Registry};
use crate::clock::now_ms;
use crate::crypto::id::{AccountId, DevboxId};
use crate::crypto::{JoinSecret, TokenHash};
use crate::pki::{CheckedRequest, InvalidRequest, SignedCertificate};
use crate::store::{Action, Actor, JoinRefusal, Renewed};

impl Registry {
    /// Redeems a join token (the whole bearer) for a certificate over the request's key, which ends
    /// every earlier certificate of the devbox. Of any number of attempts, one succeeds. A request
    /// for a different devbox leaves the token usable.
    ///
    /// # Errors
    /// 401 for a malformed, unknown, used or expired token; 400 for a malformed request; 403 for a
    /// request for another devbox, a devbox that is shut down, or an account without the devbox
    /// capability. Audited, except tokens of devboxes that do not exist.
    pub async fn enroll(
        &self,
        bearer: &SecretBytes,
        csr_pem: &str,
        remote: Option<IpAddr>,
    ) -> Result<IssuedIdentity, Refusal> {
        let token = JoinToken::parse(bearer.expose_secret())
            .map_err(|error| Refusal::unauthenticated("invalid_join_token", error.to_string()))?;
        let devbox = DevboxId::new(token.devbox_id());
        let Some((account, _)) = self.store().devbox_owner(&devbox).await? else {
            tracing::warn!(?remote, "a join token for a devbox that does not exist was refused");
            return Err(join_refusal(JoinRefusal::Unknown));
        };
        let attempt = attempt(&account, &devbox, Action::DevboxEnroll, remote);
        let hash = JoinSecret::hash_presented(token.secret());
        // This early check spares signing for a token that is used or expired. `redeem_join`
        // repeats it in its transaction, which decides.
        if let Err(refusal) = self.store().check_join(&devbox, hash, now_ms()).await? {
            return self.refuse(attempt, join_refusal(refusal)).await;
        }
        // The token is checked first, so that a guess reveals nothing about the account.
        if !self.store().account(&account).await?.is_some_and(|account| account.devbox_capability) {
            return self.refuse(attempt, no_devbox_capability()).await;
        }
        let signed = match self.check_request(csr_pem, &devbox) {
            Ok(request) => self.sign(&devbox, &request)?,
            Err(error) => return self.refuse(attempt, request_refusal(error)).await,
        };
        self.redeem(attempt, &devbox, hash, signed).await
    }

    /// A new certificate for the devbox of a verified client certificate. Every certificate of the
    /// devbox except these two is revoked, so of two holders of one certificate who both renew, one
    /// is refused from then on.
    ///
    /// # Errors
    /// 403 for a stranger's certificate, a devbox that is shut down, an identity that is in use
    /// elsewhere, or a request for another devbox; 400 for a malformed request. Audited.
    pub async fn renew(&self, peer: &DevboxPeer, csr_pem: &str) -> Result<IssuedIdentity, Refusal> {
        // The limit comes before admission, which reads the database and may write an audit row.
        self.check_renewal_request_rate(peer)?;
        let account = self.admit(peer, Action::DevboxRenew).await?.account;
        self.refuse_renewal_elsewhere(peer, &account).await?;
        let devbox = peer.devbox_id();
        self.check_renewal_rate(devbox)?;
        let attempt = attempt(&account, devbox, Action::DevboxRenew, peer.remote());
        let signed = match self.check_request(csr_pem, devbox) {
            Ok(request) => self.sign(devbox, &request)?,
            Err(error) => return self.refuse(attempt, request_refusal(error)).await,
        };
        let audit = attempt.clone().done().because(format!("serial {}", signed.record.serial));
        let renewed = self.store().insert_certificate(devbox, peer.serial(), &signed.record, &audit).await?;
        if let Some(Renewed { wakes }) = renewed {
            // A held request of the revoked certificate queries again, and is refused.
            if let Some(wakes) = wakes {
                self.0.changes.publish(&account, wakes);
            }
            return Ok(self.identity(devbox, signed));
        }
        // The certificate was revoked after its admission; admitting it again yields the reason.
        self.admit(peer, Action::DevboxRenew).await?;
        self.refuse(attempt, shut_down()).await
    }

    /// The certificate is handed out only if this call is the one that used the token up.
    async fn redeem(
        &self,
        attempt: Attempt,
        devbox: &DevboxId,
        hash: TokenHash,
        signed: SignedCertificate,
    ) -> Result<IssuedIdentity, Refusal> {
        let audit = attempt.clone().done().because(format!("serial {}", signed.record.serial));
        match self.store().redeem_join(devbox, hash, &signed.record, &audit).await? {
            Ok(wakes) => {
                // The new machine starts its own session; the old one must not hold the identity.
                self.0.sessions.forget(devbox);
                // Held requests of earlier certificates query again, and are refused.
                if let (Some(wakes), Some(account)) = (wakes, &attempt.account) {
                    self.0.changes.publish(account, wakes);
                }
                self.metrics().devbox_enrolled();
                Ok(self.identity(devbox, signed))
            }
            Err(refusal) => self.refuse(attempt, join_refusal(refusal)).await,
        }
    }

    pub(super) fn check_request(
        &self,
        csr_pem: &str,
        devbox: &DevboxId,
    ) -> Result<CheckedRequest, InvalidRequest> {
        CheckedRequest::check(csr_pem, &self.settings().trust_domain, devbox)
    }

    fn sign(&self, devbox: &DevboxId, request: &CheckedRequest) -> Result<SignedCertificate, Refusal> {
        let lifetime = self.settings().certificate_lifetime;
        self.ca().issue_devbox(devbox, request, lifetime).map_err(Refusal::internal)
    }

    fn identity(&self, devbox: &DevboxId, signed: SignedCertificate) -> IssuedIdentity {
        IssuedIdentity {
            devbox_id: devbox.to_string(),
            certificate: signed.pem,
            ca: self.authorities().trusted_pem(now_ms()),
        }
    }
}

fn attempt(account: &AccountId, devbox: &DevboxId, action: Action, remote: Option<IpAddr>) -> Attempt {
    let account = Some(account.clone());
    let actor = Actor::Devbox(devbox.clone());
    Attempt { account, actor, action, object: devbox.to_string(), remote }
}

fn join_refusal(refusal: JoinRefusal) -> Refusal {
    match refusal {
        JoinRefusal::Unknown => Refusal::unauthenticated(
            "unknown_join_token",
            "this server knows no such join token, or a newer one voided it: use the newest, or make another \
             (devbox-secrets-server devbox join-token ID)",
        ),
        JoinRefusal::Used => Refusal::unauthenticated(
            "used_join_token",
            "the join token was redeemed before; if not by this devbox, shut the devbox down. Make a new \
             one (devbox-secrets-server devbox join-token ID)",
        ),
        JoinRefusal::Expired => Refusal::unauthenticated(
            "expired_join_token",
            "the join token has expired: make a new one (devbox-secrets-server devbox join-token ID)",
        ),
        JoinRefusal::Shutdown => shut_down(),
    }
}

fn request_refusal(error: InvalidRequest) -> Refusal {
    match error {
        InvalidRequest::OtherDevbox => Refusal::forbidden("other_devbox", error.to_string()),
        InvalidRequest::Form | InvalidRequest::Algorithm => {
            Refusal::invalid("invalid_certificate_request", error.to_string())
        }
    }
}
