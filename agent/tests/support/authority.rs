//! A devbox CA and what it issues.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub const DEVBOX: &str = "dbx_test";
pub const TOKEN_SECRET: &str = "canary-join-secret";

/// From when until when a certificate is valid, relative to now.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub age: Duration,
    pub left: i64,
}

impl Life {
    pub const NORMAL: Self = Self { age: Duration::from_secs(60), left: 3_600 };
    pub const EXPIRED: Self = Self { age: Duration::from_secs(7_200), left: -3_600 };
    /// Two thirds of it are over.
    pub const WANING: Self = Self { age: Duration::from_secs(3_600), left: 600 };

    fn apply(self, params: &mut CertificateParams) {
        let now = SystemTime::now();
        let seconds = Duration::from_secs(self.left.unsigned_abs());
        params.not_before = (now - self.age).into();
        params.not_after = if self.left < 0 { now - seconds } else { now + seconds }.into();
    }
}

pub struct Authority {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test devbox CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { certificate: der, pem, issuer: Issuer::new(params, key) }
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate);
        digest.as_ref().try_into().unwrap()
    }

    pub fn token(&self) -> JoinToken {
        let secret = SecretBytes::new(TOKEN_SECRET.as_bytes().to_vec());
        JoinToken::new(DEVBOX, secret, self.fingerprint()).unwrap()
    }

    /// A listener's certificate for `name`, its chain, and its key.
    pub fn server(&self, name: &str, life: Life) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        life.apply(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A devbox's certificate (PEM) for a signing request.
    pub fn certify(&self, csr: &str, devbox_id: &str, life: Life) -> String {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        devbox_params(devbox_id, life).signed_by(&request.public_key, &self.issuer).unwrap().pem()
    }

    /// A devbox's certificate and key (PEM).
    pub fn devbox(&self, devbox_id: &str, life: Life) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = devbox_params(devbox_id, life).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }
}

fn devbox_params(devbox_id: &str, life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://test/devbox/{devbox_id}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    life.apply(&mut params);
    params
}
