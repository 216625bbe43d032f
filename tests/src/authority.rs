//! A devbox CA and the certificates that it issues, for tests that play the control plane.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The devbox of [`Authority::token`].
pub const DEVBOX: &str = "dbx_test";
/// The secret part of [`Authority::token`].
pub const TOKEN_SECRET: &str = "canary-join-secret";

/// A certificate's validity period, relative to now.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// Time since it became valid.
    pub age: Duration,
    /// Seconds until it expires; negative if it has expired.
    pub left: i64,
}

impl Validity {
    /// Valid for another hour.
    pub const NORMAL: Self = Self { age: Duration::from_secs(60), left: 3_600 };
    /// Expired an hour ago.
    pub const EXPIRED: Self = Self { age: Duration::from_secs(7_200), left: -3_600 };
    /// More than two thirds are over: time for a renewal.
    pub const WANING: Self = Self { age: Duration::from_secs(3_600), left: 600 };

    fn apply(self, params: &mut CertificateParams) {
        let now = SystemTime::now();
        let seconds = Duration::from_secs(self.left.unsigned_abs());
        params.not_before = (now - self.age).into();
        params.not_after = if self.left < 0 { now - seconds } else { now + seconds }.into();
    }
}

/// A devbox CA.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate.
    pub certificate: CertificateDer<'static>,
    /// The same, PEM.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A CA with a new key.
    ///
    /// # Panics
    /// As every function here: if a certificate cannot be made.
    #[must_use]
    pub fn generate() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test devbox CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key();
        let certificate = params.self_signed(&key).expect("the CA can sign itself");
        Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate);
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// A join token of [`DEVBOX`] that pins this CA.
    #[must_use]
    pub fn token(&self) -> JoinToken {
        let secret = SecretBytes::new(TOKEN_SECRET.as_bytes().to_vec());
        JoinToken::new(DEVBOX, secret, self.fingerprint()).expect("the token is well-formed")
    }

    /// A listener's certificate for `name`, its chain, and its key.
    #[must_use]
    pub fn server(
        &self,
        name: &str,
        validity: Validity,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = new_key();
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is ASCII");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity.apply(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("the CA can sign");
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).expect("a key has a PKCS #8 form"))
    }

    /// A devbox's certificate (PEM) for a signing request.
    #[must_use]
    pub fn certify(&self, csr: &str, devbox_id: &str, validity: Validity) -> String {
        let request = CertificateSigningRequestParams::from_pem(csr).expect("the request is PEM");
        let params = devbox_params(devbox_id, validity);
        params.signed_by(&request.public_key, &self.issuer).expect("the CA can sign").pem()
    }

    /// A devbox's certificate and key (PEM).
    #[must_use]
    pub fn devbox(&self, devbox_id: &str, validity: Validity) -> (String, String) {
        let key = new_key();
        let params = devbox_params(devbox_id, validity);
        let certificate = params.signed_by(&key, &self.issuer).expect("the CA can sign");
        (certificate.pem(), key.serialize_pem())
    }

    /// The roots of a verifier that trusts this CA alone.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::new(crate::tls::roots(&self.certificate))
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn devbox_params(devbox_id: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://test/devbox/{devbox_id}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a devbox id is ASCII"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    validity.apply(&mut params);
    params
}
