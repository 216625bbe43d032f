//! Changing the devbox CA: for operators only.
//!
//! A new CA issues from its rotation on. Its predecessor is trusted until every earlier certificate
//! and join token has expired, or until it is retired.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::audit::upkeep_record;
use super::{JOIN_TOKEN_LIFETIME_MS, Refusal, Registry};
use crate::clock::{TimeMs, milliseconds, now_ms, time_ms};
use crate::pki::{Authorities, CLOCK_SKEW, CurrentAuthorities, DevboxCa, Member};
use crate::store::{Action, Actor, StoreError};

/// Most CAs that are trusted at a time. Devboxes get all of them in one answer.
const MAX_TRUSTED: usize = 8;

/// A devbox CA, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorityView {
    /// SHA-256 of its certificate (DER), lowercase hexadecimal.
    pub fingerprint: String,
    pub(crate) create_time_ms: TimeMs,
    pub(crate) end_time_ms: TimeMs,
    /// The end of trust in it. `None` for the CA that issues.
    pub(crate) trusted_until_time_ms: Option<TimeMs>,
}

impl From<&Member> for AuthorityView {
    fn from(member: &Member) -> Self {
        Self {
            fingerprint: HEXLOWER.encode(member.ca.fingerprint()),
            create_time_ms: time_ms(member.ca.create_time()),
            end_time_ms: time_ms(member.ca.end_time()),
            trusted_until_time_ms: member.trusted_until_ms,
        }
    }
}

impl Registry {
    pub(crate) fn authorities(&self) -> Arc<Authorities> {
        self.0.authorities.get()
    }

    /// The devbox CAs as they change, for the devbox listener.
    pub(crate) fn current_authorities(&self) -> &Arc<CurrentAuthorities> {
        &self.0.authorities
    }

    /// The devbox CA that issues.
    #[must_use]
    pub fn ca(&self) -> Arc<DevboxCa> {
        Arc::clone(self.authorities().issuing())
    }

    /// Whether the issuer of a verified client certificate is still trusted. The connection may be
    /// older than the CA's retirement.
    pub(super) fn trusts_issuer(&self, issuer: &[u8]) -> bool {
        self.authorities().have_issuer(issuer, now_ms())
    }

    /// Reloads the CAs if they have changed. If a CA cannot be read, that is logged and the old
    /// ones stay in use.
    pub(super) async fn follow_authorities(&self) -> Result<(), StoreError> {
        let stored = self.store().authorities().await?;
        if self.authorities().are(&stored) {
            return Ok(());
        }
        match Authorities::load(stored, &self.0.keyring, &self.settings().trust_domain) {
            Ok(authorities) => {
                self.metrics().ca_ends(authorities.issuing().end_time());
                self.0.authorities.replace(authorities);
                tracing::info!("the devbox CAs have changed: the new ones are in use");
            }
            // The CAs in use stay: one that does not load must not disconnect every devbox.
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the devbox CAs were not replaced");
            }
        }
        Ok(())
    }

    /// The CAs that are trusted, newest first.
    #[must_use]
    pub fn list_cas(&self) -> Vec<AuthorityView> {
        self.authorities().trusted_members(now_ms()).map(AuthorityView::from).collect()
    }

    /// Makes the CA that issues from now on; returns those that are trusted then. Servers follow
    /// within a second.
    ///
    /// # Errors
    /// 400 if eight are trusted already.
    pub(crate) async fn rotate_ca(&self, actor: &Actor) -> Result<Vec<AuthorityView>, Refusal> {
        // Another process may have rotated the master key or the CA since this one last read them.
        self.follow_rotation().await?;
        self.follow_authorities().await?;
        if self.list_cas().len() >= MAX_TRUSTED {
            return Err(Refusal::invalid("too_many_cas", TOO_MANY));
        }
        self.insert_ca(actor).await?;
        self.follow_authorities().await?;
        Ok(self.list_cas())
    }

    async fn insert_ca(&self, actor: &Actor) -> Result<(), Refusal> {
        let master = self.0.keyring.current();
        let made = DevboxCa::create(&master, &self.settings().trust_domain);
        let (ca, wrapped_key) = made.map_err(Refusal::internal)?;
        let audit = upkeep_record(actor, Action::CaRotate, &HEXLOWER.encode(ca.fingerprint()));
        let longest = milliseconds(self.settings().certificate_lifetime).max(JOIN_TOKEN_LIFETIME_MS);
        let until_ms = audit.time_ms.saturating_add(longest);
        let margin_ms = milliseconds(CLOCK_SKEW);
        let certificate = ca.certificate_der();
        Ok(self.store().insert_authority(certificate, &wrapped_key, until_ms, margin_ms, &audit).await?)
    }

    /// Ends the trust in a CA at once; returns those that are still trusted. Servers follow within
    /// a second.
    ///
    /// # Errors
    /// 404 for a fingerprint of no CA; 400 for that of the one that issues.
    pub(crate) async fn retire_ca(
        &self,
        actor: &Actor,
        fingerprint: &str,
    ) -> Result<Vec<AuthorityView>, Refusal> {
        self.follow_authorities().await?;
        let fingerprint = fingerprint.to_ascii_lowercase();
        let authorities = self.authorities();
        let mut trusted = authorities.trusted_members(now_ms());
        let found = trusted
            .find(|member| HEXLOWER.encode(member.ca.fingerprint()) == fingerprint)
            .ok_or_else(unknown)?;
        if found.trusted_until_ms.is_none() {
            return Err(Refusal::invalid("issuing_ca", ISSUING));
        }
        let audit = upkeep_record(actor, Action::CaRetire, &fingerprint);
        if !self.store().delete_authority(found.number, &audit).await? {
            return Err(unknown());
        }
        self.follow_authorities().await?;
        Ok(self.list_cas())
    }
}

const TOO_MANY: &str = "eight devbox CAs are trusted already: wait until the oldest ends, or retire it";

const ISSUING: &str = "this devbox CA issues: make another one first (ca rotate), then retire this one";

fn unknown() -> Refusal {
    Refusal::not_found("no devbox CA that is trusted has this fingerprint: look at ca list")
}
