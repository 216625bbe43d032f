//! The content of the devbox's own certificate: its id and its validity.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Path of the SPIFFE id (`spiffe://<trust domain>/devbox/<id>`) before the id.
const DEVBOX_PATH: &str = "/devbox/";

#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidCertificate {
    /// Not X.509 (RFC 5280).
    #[error("it is not an X.509 certificate: check the file")]
    Form,
    /// No `spiffe://<trust domain>/devbox/<id>` among its alternative names.
    #[error("it names no devbox (spiffe://…/devbox/ID): issue one with the server, by a join token")]
    NoDevbox,
}

/// A certificate's validity period, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before_ms: i64,
    /// Last moment.
    pub not_after_ms: i64,
}

impl Validity {
    /// Time of the renewal: after two thirds of the validity period.
    #[must_use]
    pub(crate) fn renew_at_ms(&self) -> i64 {
        let life = self.not_after_ms.saturating_sub(self.not_before_ms);
        self.not_before_ms.saturating_add(life / 3 * 2)
    }

    #[must_use]
    pub(crate) fn has_expired(&self, now_ms: i64) -> bool {
        now_ms > self.not_after_ms
    }

    /// Time until it expires; zero afterwards.
    #[must_use]
    pub(crate) fn left(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.not_after_ms.saturating_sub(now_ms)).unwrap_or(0))
    }
}

#[derive(Debug)]
pub(super) struct Facts {
    pub(super) devbox_id: String,
    pub(super) validity: Validity,
}

pub(super) fn inspect(der: &CertificateDer<'_>) -> Result<Facts, InvalidCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidCertificate::Form)?;
    let devbox_id = devbox_id(&certificate).ok_or(InvalidCertificate::NoDevbox)?;
    let validity = certificate.validity();
    let validity = Validity {
        not_before_ms: validity.not_before.timestamp().saturating_mul(1_000),
        not_after_ms: validity.not_after.timestamp().saturating_mul(1_000),
    };
    Ok(Facts { devbox_id, validity })
}

fn devbox_id(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => devbox_of(uri),
        _ => None,
    })
}

fn devbox_of(uri: &str) -> Option<String> {
    let (_domain, id) = uri.strip_prefix("spiffe://")?.split_once(DEVBOX_PATH)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (!id.is_empty() && id.bytes().all(plain)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds_of_life() {
        let validity = Validity { not_before_ms: 1_000, not_after_ms: 31_000 };
        assert_eq!(validity.renew_at_ms(), 21_000);
        assert!(!validity.has_expired(31_000));
        assert!(validity.has_expired(31_001));
        assert_eq!(validity.left(30_000), Duration::from_secs(1));
        assert_eq!(validity.left(40_000), Duration::ZERO);
    }

    #[test]
    fn only_a_devboxs_spiffe_id_is_taken() {
        assert_eq!(devbox_of("spiffe://example.org/devbox/dbx_1").as_deref(), Some("dbx_1"));
        for other in [
            "spiffe://example.org/server",
            "https://a/devbox/x",
            "spiffe://a/devbox/",
            "spiffe://a/devbox/a/b",
        ] {
            assert_eq!(devbox_of(other), None, "{other}");
        }
    }
}
