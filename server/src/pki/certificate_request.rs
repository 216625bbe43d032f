//! A devbox's request for a certificate (PKCS #10, RFC 2986): only its public key is used.

use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, DnValue, SanType};
use thiserror::Error;

use super::client_certificate::spiffe_id;
use crate::crypto::id::DevboxId;

/// The longest accepted request, in bytes.
const MAX_CSR_LEN: usize = 16 * 1024;

#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub(crate) enum InvalidRequest {
    #[error("the certificate request is not a PKCS #10 request in PEM with a valid signature")]
    Form,
    #[error("the certificate request's key is not ECDSA P-256, ECDSA P-384 or Ed25519")]
    Algorithm,
    #[error("the certificate request names another devbox than the one that asks")]
    OtherDevbox,
}

/// The public key of a request that was checked to be for one devbox.
#[derive(Debug)]
pub(crate) struct CheckedRequest(rcgen::PublicKey);

impl CheckedRequest {
    /// Checks that a request is well formed, signed by its own key, and for `devbox` of
    /// `trust_domain`.
    pub(crate) fn check(
        csr_pem: &str,
        trust_domain: &str,
        devbox: &DevboxId,
    ) -> Result<Self, InvalidRequest> {
        if csr_pem.len() > MAX_CSR_LEN {
            return Err(InvalidRequest::Form);
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| InvalidRequest::Form)?;
        let known = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !known.contains(&request.public_key.algorithm()) {
            return Err(InvalidRequest::Algorithm);
        }
        match names_only(&request.params, trust_domain, devbox) {
            true => Ok(Self(request.public_key)),
            false => Err(InvalidRequest::OtherDevbox),
        }
    }

    pub(crate) fn public_key(&self) -> &rcgen::PublicKey {
        &self.0
    }
}

fn names_only(params: &CertificateParams, trust_domain: &str, devbox: &DevboxId) -> bool {
    let spiffe_id = spiffe_id(trust_domain, devbox);
    let is_own = |san: &SanType| matches!(san, SanType::URI(uri) if uri.as_str() == spiffe_id);
    let common_name = params.distinguished_name.get(&DnType::CommonName).and_then(text);
    common_name == Some(devbox.as_str()) && params.subject_alt_names.iter().all(is_own)
}

fn text(value: &DnValue) -> Option<&str> {
    match value {
        DnValue::Utf8String(text) => Some(text),
        DnValue::PrintableString(text) => Some(text.as_str()),
        _ => None,
    }
}
