//! A devbox CA: made at the first start or by a rotation, its private key wrapped by the master
//! key.
//!
//! It signs devboxes' certificates (`clientAuth`, SAN `spiffe://<trust domain>/devbox/<id>`) and
//! the devbox listener's own (`serverAuth`). ECDSA P-256; of a certificate request only the public
//! key is used (RFC 5280, SPIFFE X.509-SVID).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::certificate_request::CheckedRequest;
use super::client_certificate::spiffe_id;
use crate::clock::{milliseconds, now_ms};
use crate::crypto::id::DevboxId;
use crate::crypto::{CryptoError, MasterKey, fill_random};
use crate::store::IssuedCertificate;

/// How long the CA itself is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Certificates are valid from a little in the past, for devboxes whose clocks are behind.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

const SERIAL_LEN: usize = 16;

pub(crate) const CA_KEY_PURPOSE: &str = "devbox CA key";

/// Why the CA cannot be made, read or used.
#[derive(Debug, Error)]
pub enum CaError {
    /// The stored key does not open, or random numbers are unavailable.
    #[error("the devbox CA's key is not available")]
    Crypto(#[from] CryptoError),
    /// A certificate or key is malformed, or could not be made.
    #[error("a certificate or key of the devbox CA could not be made or read")]
    Certificate(#[from] rcgen::Error),
}

#[derive(Debug)]
pub(crate) struct SignedCertificate {
    pub(crate) record: IssuedCertificate,
    pub(crate) pem: String,
}

#[derive(Debug)]
pub(crate) struct ServerIdentity {
    /// The leaf, then the CA.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) not_after: SystemTime,
}

/// A devbox CA.
#[derive(Debug)]
pub struct DevboxCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    details: CaDetails,
    fingerprint: [u8; 32],
    trust_domain: String,
}

impl DevboxCa {
    /// A new CA, and its private key in the form to be stored.
    pub(crate) fn create(master: &MasterKey, trust_domain: &str) -> Result<(Self, Vec<u8>), CaError> {
        let key = KeyPair::generate()?;
        let wrapped = master.wrap(CA_KEY_PURPOSE, key.serialized_der())?;
        let mut params = validity(CertificateParams::default(), CA_LIFETIME);
        let serial = serial()?;
        params.distinguished_name.push(DnType::CommonName, name(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok((Self::assemble(certificate, key, trust_domain)?, wrapped))
    }

    /// The stored CA.
    pub(crate) fn load(
        certificate: Vec<u8>,
        wrapped_key: &[u8],
        master: &MasterKey,
        trust_domain: &str,
    ) -> Result<Self, CaError> {
        let pkcs8 = master.unwrap(CA_KEY_PURPOSE, wrapped_key)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.expose_secret()))?;
        Self::assemble(certificate.into(), key, trust_domain)
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        trust_domain: &str,
    ) -> Result<Self, CaError> {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &certificate).as_ref());
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            pem: pem(&certificate),
            details: CaDetails::read(&certificate)?,
            certificate,
            fingerprint,
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// The CA's certificate.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate in PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 over the CA's certificate (DER): what join tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Its name (DER), as it is in every certificate that it signs. No other CA of the state has
    /// it.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.details.subject
    }

    pub(crate) fn create_time(&self) -> SystemTime {
        self.details.not_before + CLOCK_SKEW
    }

    pub(crate) fn end_time(&self) -> SystemTime {
        self.details.not_after
    }

    /// A new key and certificate for the devbox listener, valid for `names` (DNS names or IP
    /// addresses).
    ///
    /// # Errors
    /// [`CaError::Certificate`] if a name is neither.
    pub(crate) fn issue_server(
        &self,
        names: &[String],
        lifetime: Duration,
    ) -> Result<ServerIdentity, CaError> {
        let mut params = validity(CertificateParams::new(names)?, lifetime);
        params.distinguished_name.push(DnType::CommonName, "Devbox Secrets devbox listener");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = self.sign(params, serial()?, &key)?;
        let not_after = SystemTime::now() + lifetime;
        Ok(ServerIdentity { chain: vec![leaf, self.certificate.clone()], key: key.into(), not_after })
    }

    /// Signs a certificate for `devbox` over the request's public key.
    pub(crate) fn issue_devbox(
        &self,
        devbox: &DevboxId,
        request: &CheckedRequest,
        lifetime: Duration,
    ) -> Result<SignedCertificate, CaError> {
        let mut params = validity(CertificateParams::default(), lifetime);
        params.distinguished_name.push(DnType::CommonName, devbox.as_str());
        let identity = spiffe_id(&self.trust_domain, devbox);
        params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = serial()?;
        let issue_time_ms = now_ms();
        let record = IssuedCertificate {
            serial: HEXLOWER.encode(serial.as_ref()),
            issue_time_ms,
            not_after_time_ms: issue_time_ms.saturating_add(milliseconds(lifetime)),
        };
        let leaf = self.sign(params, serial, request.public_key())?;
        Ok(SignedCertificate { record, pem: pem(&leaf) })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        serial: SerialNumber,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        params.serial_number = Some(serial);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

#[derive(Debug)]
struct CaDetails {
    subject: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl CaDetails {
    fn read(certificate: &[u8]) -> Result<Self, rcgen::Error> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().as_raw().to_vec(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

/// Seconds since 1970, as certificates have them; before that, 1970.
fn time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}

/// A unique name: clients name the CAs that they trust, and certificates name their issuer.
fn name(serial: &SerialNumber) -> String {
    format!("Devbox Secrets devbox CA {}", HEXLOWER.encode(serial.as_ref()))
}

fn validity(mut params: CertificateParams, lifetime: Duration) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// Random, positive and without leading zeros, so that it has one encoding (RFC 5280 section
/// 4.1.2.2).
fn serial() -> Result<SerialNumber, CryptoError> {
    let mut bytes = [0; SERIAL_LEN];
    fill_random(&mut bytes)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// RFC 7468, with the line ends of Unix.
fn pem(certificate: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate), config)
}
