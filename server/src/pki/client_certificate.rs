//! A devbox's certificate, as the devbox listener receives it: an X.509-SVID (SPIFFE) of one
//! devbox.

use data_encoding::HEXLOWER;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::crypto::id::{DEVBOX_PREFIX, DevboxId};

#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate {
    pub(crate) devbox: DevboxId,
    /// Lowercase hexadecimal.
    pub(crate) serial: String,
    /// The name of the CA that signed it, DER.
    pub(crate) issuer: Vec<u8>,
}

impl ClientCertificate {
    /// Reads a verified certificate (DER). `None` if it names no devbox of `trust_domain`.
    pub(crate) fn parse(leaf: &[u8], trust_domain: &str) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        Some(Self {
            devbox: named_devbox(&certificate, trust_domain)?,
            serial: HEXLOWER.encode(certificate.raw_serial()),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }
}

/// The identity of a devbox (SPIFFE ID section 2).
pub(super) fn spiffe_id(trust_domain: &str, devbox: &DevboxId) -> String {
    format!("spiffe://{trust_domain}/devbox/{devbox}")
}

/// Exactly one URI, as an X.509-SVID has it.
fn named_devbox(certificate: &X509Certificate<'_>, trust_domain: &str) -> Option<DevboxId> {
    let names = certificate.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri)] = names.value.general_names[..] else {
        return None;
    };
    let path = uri.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?;
    let id = path.strip_prefix("/devbox/")?;
    id.starts_with(DEVBOX_PREFIX).then(|| DevboxId::new(id))
}
