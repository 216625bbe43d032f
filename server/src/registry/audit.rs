//! The audit records of writes and refusals.

use std::net::IpAddr;

use super::audit_limit::RefusalKey;
use super::{Refusal, RefusalKind, Registry};
use crate::clock::now_ms;
use crate::crypto::id::AccountId;
use crate::store::{Action, Actor, AuditEntry, AuditPage, AuditRecord, Outcome, StoreError};

/// The most refusals that are alike (see [`RefusalKey`]) that are recorded in a minute.
pub(super) const MOST_REFUSALS: u32 = 60;

/// An attempt whose outcome is not known yet.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) account: Option<AccountId>,
    pub(super) actor: Actor,
    pub(super) action: Action,
    pub(super) object: String,
    pub(super) remote: Option<IpAddr>,
}

impl Attempt {
    /// The row for a success.
    pub(super) fn done(self) -> AuditRecord {
        AuditRecord {
            time_ms: now_ms(),
            account: self.account,
            actor: self.actor,
            action: self.action,
            object: self.object,
            object_name: None,
            outcome: Outcome::Done,
            reason: None,
            remote: self.remote,
        }
    }

    pub(super) fn refused(self, reason: &str) -> AuditRecord {
        AuditRecord { outcome: Outcome::Refused, reason: Some(reason.to_owned()), ..self.done() }
    }
}

impl AuditRecord {
    /// Adds the object's name.
    pub(super) fn named(self, name: &str) -> Self {
        Self { object_name: Some(name.to_owned()), ..self }
    }

    /// Adds a few facts.
    pub(super) fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }
}

/// The record of an operator's act on the whole state.
pub(crate) fn upkeep_record(actor: &Actor, action: Action, object: &str) -> AuditRecord {
    let actor = actor.clone();
    let object = object.to_owned();
    Attempt { account: None, actor, action, object, remote: None }.done()
}

impl Registry {
    /// Records an operator's act on the whole state.
    pub(crate) async fn note(&self, actor: &Actor, action: Action, object: &str) -> Result<(), Refusal> {
        Ok(self.store().record(&upkeep_record(actor, action, object)).await?)
    }

    /// Records the refusal, then returns it as the error, even if the audit cannot be written.
    pub(super) async fn refuse<T>(&self, attempt: Attempt, refusal: Refusal) -> Result<T, Refusal> {
        debug_assert_ne!(refusal.kind(), RefusalKind::Internal);
        if self.is_due(&attempt, &refusal, MOST_REFUSALS) {
            self.try_record(&attempt.refused(refusal.code())).await;
        }
        Err(refusal)
    }

    /// Whether a refusal is recorded, of at most `most` a minute that are alike.
    pub(super) fn is_due(&self, attempt: &Attempt, refusal: &Refusal, most: u32) -> bool {
        self.0.audit_limiter.is_due(RefusalKey::of(attempt, refusal.code()), most)
    }

    /// Records a row; if that fails, the response stays the same.
    pub(super) async fn try_record(&self, row: &AuditRecord) {
        if let Err(error) = self.store().record(row).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be audited");
        }
    }

    /// Up to `limit` rows of the audit; of one account or of all.
    pub(crate) async fn audit_page(
        &self,
        account: Option<&AccountId>,
        page: AuditPage,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, Refusal> {
        Ok(self.store().audit_page(account, page, limit).await?)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

impl From<crate::crypto::CryptoError> for Refusal {
    fn from(error: crate::crypto::CryptoError) -> Self {
        Self::internal(error)
    }
}
