//! Trust from a join token. The server's chain must hold the CA with the pinned SHA-256, and its own certificate, checked as
//! for any server (name, time, purpose, signatures), must lead to that CA and no other. The client names that CA to the
//! server ([`ca_name`]), which may have several.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use devbox_secrets_common::verify_signatures_with;
use devbox_secrets_proto::ca_name::ca_name;
use devbox_secrets_proto::join_token::FINGERPRINT_LEN;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};
use thiserror::Error as ThisError;

use super::tls;

#[derive(Debug, ThisError, Clone, Copy, PartialEq, Eq)]
#[error("no certificate that the server showed has the SHA-256 in the join token")]
pub(crate) struct WrongPin;

/// Trusts the CA that a join token pins, and only that.
pub(crate) struct PinnedCa {
    fingerprint: [u8; FINGERPRINT_LEN],
    name: [DistinguishedName; 1],
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    /// `fingerprint`: SHA-256 over the CA certificate's DER form.
    #[must_use]
    pub(crate) fn new(fingerprint: [u8; FINGERPRINT_LEN]) -> Self {
        let name = [DistinguishedName::in_sequence(&ca_name(&fingerprint))];
        Self { fingerprint, name, provider: tls::provider() }
    }

    /// A fingerprint is public, so the comparison need not take constant time.
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        digest(&SHA256, certificate).as_ref() == self.fingerprint
    }
}

fn verifier(ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    tls::verifier(roots)
}

impl fmt::Debug for PinnedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedCa").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let wrong_pin = || Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(WrongPin))));
        let ca =
            intermediates.iter().find(|certificate| self.is_pinned(certificate)).ok_or_else(wrong_pin)?;
        verifier(ca)?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    verify_signatures_with!(provider);

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.name)
    }
}
