//! The devbox listener accepts certificates that were signed by a CA which is trusted at that
//! moment.

use std::sync::Arc;

use devbox_secrets_common::verify_signatures_with;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error, RootCertStore};

use super::{TlsError, provider, unix_time_ms};
use crate::pki::CurrentAuthorities;

/// Verifies clients against the CAs that are trusted at that moment: they may change while the
/// listener is open.
#[derive(Debug)]
pub(super) struct DevboxVerifier {
    authorities: Arc<CurrentAuthorities>,
    provider: Arc<CryptoProvider>,
}

impl DevboxVerifier {
    pub(super) fn new(authorities: Arc<CurrentAuthorities>) -> Self {
        Self { authorities, provider: provider() }
    }

    /// The verifier is built for each handshake: a few microseconds of some hundred.
    pub(super) fn at(&self, now: UnixTime) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for ca in self.authorities.get().trusted(unix_time_ms(now)) {
            roots.add(ca.certificate_der().clone()).map_err(TlsError::Ca)?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Verifier)
    }
}

impl ClientCertVerifier for DevboxVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: daemons have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Accepts only certificates signed by a trusted CA itself. Devboxes have no intermediates, and
    /// a stolen CA key could sign one that bears another CA's name.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier = self.at(now).map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_client_cert(end_entity, &[], now)
    }

    verify_signatures_with!(provider);
}
