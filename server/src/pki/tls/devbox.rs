//! TLS of the devbox listener, and the choice of its certificate.
//!
//! A client certificate has to pass `verifier`; each route decides whether it needs one. Each
//! connection verifies its client's certificate.
//!
//! The listener has a certificate from each trusted CA, renewed before it expires, and presents the
//! one whose CA the client trusts (`certificate_authorities`, RFC 8446 section 4.2.4): by the CA's
//! name, or by [`ca_name`]. A client that names no CA gets the newest. The chain includes the CA's
//! own certificate, so that a client that knows only the CA's fingerprint finds the CA in the
//! handshake.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devbox_secrets_proto::ca_name::ca_name;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, ServerConfig};

use super::verifier::DevboxVerifier;
use super::{TlsError, builder, finish, provider, unix_time_ms};
use crate::clock::TimeMs;
use crate::metrics::Metrics;
use crate::pki::{Authorities, CLOCK_SKEW, CurrentAuthorities, DevboxCa};

/// How long the listener's certificates live. Each is issued anew in its last third.
const LISTENER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// TLS of the devbox listener, from the devbox CAs. `names` are the DNS names and IP addresses of
/// its certificates.
///
/// # Errors
/// [`TlsError::Ca`], [`TlsError::Verifier`], [`TlsError::Issue`].
pub(crate) fn devbox_tls(
    authorities: &Arc<CurrentAuthorities>,
    metrics: &Arc<Metrics>,
    names: Vec<String>,
) -> Result<ServerConfig, TlsError> {
    let verifier = DevboxVerifier::new(Arc::clone(authorities));
    verifier.at(UnixTime::now())?;
    let certificates = ListenerCertificates::issue(Arc::clone(authorities), Arc::clone(metrics), names)?;
    let config = builder()
        .map_err(TlsError::Ca)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certificates));
    Ok(finish(config))
}

/// The listener's certificates, each issued anew in time.
struct ListenerCertificates {
    authorities: Arc<CurrentAuthorities>,
    metrics: Arc<Metrics>,
    names: Vec<String>,
    /// By the fingerprint of the CA.
    issued: Mutex<HashMap<[u8; 32], Issued>>,
}

struct Issued {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl ListenerCertificates {
    fn issue(
        authorities: Arc<CurrentAuthorities>,
        metrics: Arc<Metrics>,
        names: Vec<String>,
    ) -> Result<Self, TlsError> {
        let certificates = Self { authorities, metrics, names, issued: Mutex::default() };
        certificates.renew(certificates.authorities.get().issuing())?;
        Ok(certificates)
    }

    /// A panic while the lock was held leaves the map whole: nothing that can panic is done under
    /// it.
    fn issued(&self) -> MutexGuard<'_, HashMap<[u8; 32], Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificate from `ca` for a handshake at `now`. If renewing it fails, the old one stays
    /// in use.
    fn at(&self, ca: &DevboxCa, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let current = self.issued().get(ca.fingerprint()).map(Issued::parts);
        match current {
            Some((certified, fresh)) if fresh.contains(&now) => Some(certified),
            current => match self.renew(ca) {
                Ok(certified) => {
                    tracing::info!("the devbox listener has a new certificate");
                    Some(certified)
                }
                Err(error) => {
                    tracing::error!(%error, "the devbox listener's certificate was not renewed");
                    current.map(|(certified, _)| certified)
                }
            },
        }
    }

    /// Issues a certificate from `ca`, and drops those of CAs that are no longer trusted.
    fn renew(&self, ca: &DevboxCa) -> Result<Arc<CertifiedKey>, TlsError> {
        let new = Issued::new(ca, &self.names)?;
        let certified = Arc::clone(&new.certified);
        let authorities = self.authorities.get();
        if authorities.issuing().fingerprint() == ca.fingerprint() {
            self.metrics.certificate_ends("devbox", new.not_after);
        }
        let trusted: Vec<_> =
            authorities.trusted(unix_time_ms(UnixTime::now())).map(|ca| *ca.fingerprint()).collect();
        let mut issued = self.issued();
        issued.retain(|fingerprint, _| trusted.contains(fingerprint));
        issued.insert(*ca.fingerprint(), new);
        Ok(certified)
    }
}

impl Issued {
    fn new(ca: &DevboxCa, names: &[String]) -> Result<Self, TlsError> {
        let identity = ca.issue_server(names, LISTENER_CERTIFICATE_LIFETIME).map_err(TlsError::Issue)?;
        let certified =
            CertifiedKey::from_der(identity.chain, identity.key, &provider()).map_err(TlsError::Ca)?;
        Ok(Self { certified: Arc::new(certified), not_after: identity.not_after })
    }

    /// The certificate, and the time in which it needs no renewal: from its issue to its last
    /// third. The start counts because a clock that was ahead at the issue, and is corrected, would
    /// leave the listener with a certificate that is not valid yet.
    fn parts(&self) -> (Arc<CertifiedKey>, Range<SystemTime>) {
        let begin = self.not_after - LISTENER_CERTIFICATE_LIFETIME - CLOCK_SKEW;
        (Arc::clone(&self.certified), begin..self.not_after - LISTENER_CERTIFICATE_LIFETIME / 3)
    }
}

impl ResolvesServerCert for ListenerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = UnixTime::now();
        let trusted = hello.certificate_authorities().unwrap_or_default();
        let authorities = self.authorities.get();
        let ca = chosen(&authorities, trusted, unix_time_ms(now));
        self.at(ca, UNIX_EPOCH + Duration::from_secs(now.as_secs()))
    }
}

impl fmt::Debug for ListenerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerCertificates").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The newest CA in `named`; the issuing one if `named` has no trusted CA.
fn chosen<'a>(
    authorities: &'a Authorities,
    named: &[DistinguishedName],
    now_ms: TimeMs,
) -> &'a Arc<DevboxCa> {
    let is_named = |ca: &&Arc<DevboxCa>| named.iter().any(|name| names(name, ca));
    authorities.trusted(now_ms).find(is_named).unwrap_or_else(|| authorities.issuing())
}

fn names(name: &DistinguishedName, ca: &DevboxCa) -> bool {
    let by_fingerprint = DistinguishedName::in_sequence(&ca_name(ca.fingerprint()));
    [ca.subject(), by_fingerprint.as_ref()].contains(&name.as_ref())
}

#[cfg(test)]
mod tests;
