//! Whom the devbox listener believes: certificates that a devbox CA signed which is trusted at that moment.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::{TlsError, provider, unix_time_ms};
use crate::pki::CurrentAuthorities;

/// Verifies clients against the CAs that are trusted at that moment: which, may change while the listener is open.
#[derive(Debug)]
pub(super) struct DevboxVerifier {
    authorities: Arc<CurrentAuthorities>,
    provider: Arc<CryptoProvider>,
}

impl DevboxVerifier {
    pub(super) fn new(authorities: Arc<CurrentAuthorities>) -> Self {
        Self { authorities, provider: provider() }
    }

    /// A few microseconds, in a handshake of some hundred.
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

    /// None: daemons have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Directly from a trusted CA: devboxes' certificates have none between, and who once had a CA's key could make one that
    /// bears another CA's name.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier = self.at(now).map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_client_cert(end_entity, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
