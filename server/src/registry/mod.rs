//! The decisions: who may do what, and the record of it. One file a resource.
//!
//! Every refusal of a known actor (a revoked token, a missing capability, a used join token, a
//! stranger's certificate) is audited, but at most 60 a minute of refusals that are alike. Every
//! write is audited in its own transaction.
//!
//! Words that the modules of this crate share:
//!
//! - *account*: the tenant that owns secrets, devboxes and API tokens;
//! - *caller*: an account's API token, or an operator; *peer*: a devbox by its verified client
//!   certificate;
//! - *refusal*: an error for the caller, with a status and a code; *attempt*: an act before it is
//!   known how it ended;
//! - *revision*: a counter of an account's changes; *wakes*: a counter of the times that its held
//!   requests had to look again;
//! - *held request*: a bundle request that waits for a wake or for its deadline;
//! - *admission state*: everything that decides whether a devbox may have its bundle, read in one
//!   query;
//! - *identity session*: the one machine and connection on which a devbox's identity is in use;
//! - *claim*: a request's right to be answered, until the same identity makes a later step or
//!   continues elsewhere;
//! - *step*: a nonce with which each bundle request follows on the one before it (see
//!   `clone_detection`);
//! - *keyring*: the master key in use; *authority*: a devbox CA as it is stored.

mod accounts;
mod audit;
mod audit_limit;
mod budgets;
mod bundles;
mod ca_rotation;
mod caller;
mod changes;
mod clone_detection;
mod devboxes;
mod enrolment;
mod expected;
mod identity_sessions;
mod in_flight;
mod join_tokens;
mod limits;
mod master_key;
pub(crate) mod network;
mod open;
mod peer;
pub(crate) mod rate;
mod refusal;
mod rekeying;
mod retention;
mod retries;
mod secrets;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub(crate) use accounts::AccountView;
pub(crate) use audit::upkeep_record;
pub(crate) use ca_rotation::AuthorityView;
pub use caller::Caller;
pub use devboxes::NewDevbox;
pub(crate) use devboxes::{DevboxPage, DevboxQuery, DevboxView, JOIN_TOKEN_LIFETIME_MS};
pub(crate) use in_flight::Delivery;
pub(crate) use open::{Access, OpenError, check_keys};
pub use peer::DevboxPeer;
pub use refusal::{Refusal, RefusalKind};
pub(crate) use retention::server_facts;
pub(crate) use retries::Retry;
pub(crate) use secrets::{SecretPage, SecretView};
pub(crate) use tokens::TokenView;

pub use crate::crypto::ApiToken;
pub(crate) use crate::crypto::id::AccountId;
pub(crate) use crate::store::{Action, AuditEntry, AuditPage, Budget, DevboxStatus, Scopes, SecretSelector};
pub use crate::store::{Actor, Scope};

use crate::config::{DEFAULT_CERTIFICATE_LIFETIME, DEFAULT_TRUST_DOMAIN, Limits};
use crate::crypto::Keyring;
use crate::metrics::Metrics;
use crate::pki::CurrentAuthorities;
use crate::store::{MetaKey, Store};

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The trust domain of devboxes' SPIFFE ids.
    pub(crate) trust_domain: String,
    pub(crate) certificate_lifetime: Duration,
    /// Budgets, until [`Registry::set_limits`] replaces them.
    pub(crate) limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
            certificate_lifetime: DEFAULT_CERTIFICATE_LIFETIME,
            limits: Limits::default(),
        }
    }
}

/// The control plane's decisions over one state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Arc<dyn Store>,
    keyring: Keyring,
    authorities: Arc<CurrentAuthorities>,
    changes: changes::Changes,
    sessions: identity_sessions::IdentitySessions,
    audit_limiter: audit_limit::AuditLimiter,
    expected: expected::Expected,
    rates: budgets::Rates,
    in_flight: in_flight::InFlight,
    limits: RwLock<Limits>,
    metrics: Arc<Metrics>,
    settings: Settings,
}

impl Registry {
    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Checkpoints the database before the server stops. A failure is only logged: every write is
    /// on disk already.
    pub(crate) async fn checkpoint(&self) {
        if let Err(error) = self.store().checkpoint().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database could not be settled");
        }
    }

    /// Whether the database can be read and its master key is loaded. If not, the reason is logged.
    pub(crate) async fn is_ready(&self) -> bool {
        match self.store().meta(MetaKey::KeyCheck).await {
            Ok(Some(check)) => self.0.keyring.of(&check).is_some(),
            Ok(None) => false,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the database does not answer");
                false
            }
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        *self.0.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the budgets, except the bytes in flight, which are set at the start.
    pub fn set_limits(&self, limits: Limits) {
        *self.0.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }
}
