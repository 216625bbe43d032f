//! The devbox CAs that are trusted at one time: the newest issues, and others are trusted until
//! what they signed has ended.
//!
//! Each check compares with the wall clock, so no timer has to fire when the trust in a CA ends. A
//! change by another program is noticed and followed without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;

use super::{CaError, DevboxCa};
use crate::clock::TimeMs;
use crate::crypto::{CryptoError, Keyring};
use crate::store::Authority;

#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("no devbox CA issues")]
    NoneIssues,
    #[error("a devbox CA cannot be read")]
    Ca(#[from] CaError),
}

/// A CA, and until when it is trusted.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) number: i64,
    pub(crate) ca: Arc<DevboxCa>,
    /// `None` for the CA that issues.
    pub(crate) trusted_until_ms: Option<TimeMs>,
}

impl Member {
    fn is_trusted(&self, now_ms: TimeMs) -> bool {
        self.trusted_until_ms.is_none_or(|until| now_ms < until)
    }

    fn is(&self, stored: &Authority) -> bool {
        (self.number, self.trusted_until_ms) == (stored.number, stored.trusted_until_time_ms)
    }
}

/// The CAs of a state, as they were when they were read.
#[derive(Debug, Clone)]
pub(crate) struct Authorities {
    issuing: Arc<DevboxCa>,
    /// Newest first, the issuing one among them.
    members: Vec<Member>,
}

impl Authorities {
    pub(crate) fn first(ca: DevboxCa, number: i64) -> Self {
        let issuing = Arc::new(ca);
        let member = Member { number, ca: Arc::clone(&issuing), trusted_until_ms: None };
        Self { issuing, members: vec![member] }
    }

    /// `stored` is newest first. Opens their keys with the master key that `keyring` has or finds.
    pub(crate) fn load(
        stored: Vec<Authority>,
        keyring: &Keyring,
        trust_domain: &str,
    ) -> Result<Self, LoadError> {
        let load = |stored| member(stored, keyring, trust_domain);
        let members = stored.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let issuing = members.iter().find(|member| member.trusted_until_ms.is_none());
        let issuing = Arc::clone(&issuing.ok_or(LoadError::NoneIssues)?.ca);
        Ok(Self { issuing, members })
    }

    pub(crate) fn issuing(&self) -> &Arc<DevboxCa> {
        &self.issuing
    }

    /// Those that are trusted at `now_ms` (milliseconds since 1970), newest first; the issuing one
    /// always is.
    pub(crate) fn trusted(&self, now_ms: TimeMs) -> impl Iterator<Item = &Arc<DevboxCa>> {
        self.trusted_members(now_ms).map(|member| &member.ca)
    }

    pub(crate) fn trusted_members(&self, now_ms: TimeMs) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.is_trusted(now_ms))
    }

    /// The certificates of [`Self::trusted`], PEM.
    pub(crate) fn trusted_pem(&self, now_ms: TimeMs) -> String {
        self.trusted(now_ms).map(|ca| ca.certificate_pem()).collect()
    }

    /// Whether a trusted CA has the name `issuer` (DER). Names are unique, and the handshake
    /// accepts only certificates signed by a trusted CA itself, so the issuer's name identifies the
    /// CA.
    pub(crate) fn have_issuer(&self, issuer: &[u8], now_ms: TimeMs) -> bool {
        self.trusted(now_ms).any(|ca| ca.subject() == issuer)
    }

    pub(crate) fn are(&self, stored: &[Authority]) -> bool {
        self.members.len() == stored.len()
            && self.members.iter().zip(stored).all(|(member, stored)| member.is(stored))
    }
}

fn member(stored: Authority, keyring: &Keyring, trust_domain: &str) -> Result<Member, CaError> {
    let master = keyring.of(&stored.wrapped_key).ok_or(CryptoError::Open)?;
    let ca = DevboxCa::load(stored.certificate, &stored.wrapped_key, &master, trust_domain)?;
    Ok(Member { number: stored.number, ca: Arc::new(ca), trusted_until_ms: stored.trusted_until_time_ms })
}

/// The CAs in use, shared by the registry and the devbox listener.
#[derive(Debug)]
pub(crate) struct CurrentAuthorities(RwLock<Arc<Authorities>>);

impl CurrentAuthorities {
    pub(crate) fn new(authorities: Authorities) -> Self {
        Self(RwLock::new(Arc::new(authorities)))
    }

    /// The CAs at this moment: a reader keeps them however they change.
    pub(crate) fn get(&self) -> Arc<Authorities> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, authorities: Authorities) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authorities);
    }
}
