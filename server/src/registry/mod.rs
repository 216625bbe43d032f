//! The decisions: who may do what, and what is written down about it. One file a resource.
//!
//! Every refusal of somebody who is known (a revoked token, a missing capability, a used join token, a stranger's
//! certificate) is audited; so is every write, in its own transaction.

mod accounts;
mod audit;
mod bundles;
mod ca;
mod caller;
mod changes;
mod devboxes;
mod enrolment;
mod limits;
mod open;
mod peer;
mod refusal;
mod secrets;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use accounts::{AccountView, DevelopmentAccount};
pub use ca::{CaError, DevboxCa, ServerIdentity};
pub use caller::Caller;
pub use devboxes::{DevboxPage, DevboxView, JOIN_TOKEN_LIFETIME_MS, NewDevbox};
pub use open::OpenError;
pub use peer::DevboxPeer;
pub use refusal::{Refusal, RefusalKind};
pub use secrets::{SecretPage, SecretView};
pub use tokens::TokenView;

pub use crate::crypto::ApiToken;
pub use crate::crypto::id::{AccountId, DevboxId, SecretId, TokenId};
pub use crate::store::{Actor, AuditEntry, DevboxStatus, GatewayBinding, SecretSelector};

use crate::crypto::MasterKey;
use crate::store::{Store, TimeMs};

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The trust domain of devboxes' SPIFFE ids.
    pub trust_domain: String,
    /// How long a devbox's certificate is valid.
    pub certificate_lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: "devbox-secrets".to_owned(),
            certificate_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The control plane's decisions over one state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Arc<dyn Store>,
    master: MasterKey,
    ca: DevboxCa,
    changes: changes::Changes,
    settings: Settings,
}

impl Registry {
    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The devbox CA.
    #[must_use]
    pub fn ca(&self) -> &DevboxCa {
        &self.0.ca
    }

    /// What the operator chose.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

/// The wall clock, in milliseconds since the Unix epoch; a clock before 1970 reads as 0.
fn now_ms() -> TimeMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    milliseconds(since_epoch)
}

fn milliseconds(duration: Duration) -> TimeMs {
    TimeMs::try_from(duration.as_millis()).unwrap_or(TimeMs::MAX)
}
