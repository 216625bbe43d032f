//! A devbox made by hand: what a daemon says to the devbox listener, one step at a time, and what it must never say.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::devbox::{
    BOOT_LEN, BUNDLE_PATH, Continuity, ENROLL_PATH, IssuedIdentity, RENEW_PATH, STEP_LEN,
};
use devbox_secrets_proto::seal::BundleKey;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::client::{Answer, Connection, Protocol};
use crate::tls::{Client, Identity, Trust};

/// A key, and the devbox that it asks a certificate for.
#[derive(Debug)]
pub struct Applicant {
    key: KeyPair,
    devbox_id: String,
}

impl Applicant {
    /// A fresh key.
    ///
    /// # Panics
    /// If none can be made.
    #[must_use]
    pub fn new(devbox_id: &str) -> Self {
        Self { key: KeyPair::generate().expect("a key can be made"), devbox_id: devbox_id.to_owned() }
    }

    /// The certificate signing request, PEM.
    ///
    /// # Panics
    /// If the id cannot stand in one.
    #[must_use]
    pub fn request(&self) -> String {
        self.request_with(Vec::new())
    }

    /// The same with subject alternative names, which a daemon's request does not have.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn request_with(&self, subject_alt_names: Vec<SanType>) -> String {
        let mut parameters = self.parameters();
        parameters.subject_alt_names = subject_alt_names;
        let request = parameters.serialize_request(&self.key).expect("the request can be signed");
        request.pem().expect("a request has a PEM form")
    }

    /// The identity that the server's answer and this key make.
    ///
    /// # Panics
    /// If the answer is malformed.
    #[must_use]
    pub fn issued(&self, issued: &IssuedIdentity) -> Identity {
        assert_eq!(issued.devbox_id, self.devbox_id);
        Identity { chain: vec![certificate(&issued.certificate)], key: self.private_key() }
    }

    /// The key, PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The private number of the key, which has 32 bytes on the curve P-256 (RFC 5915 section 3: it follows its own length).
    ///
    /// # Panics
    /// If the key is of another kind.
    #[must_use]
    pub fn private_number(&self) -> Vec<u8> {
        let der = self.key.serialize_der();
        let octets = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = der.windows(octets.len()).position(|window| window == octets);
        let start = at.expect("a P-256 key has its number after version 1") + octets.len();
        der[start..start + 32].to_vec()
    }

    /// A certificate for the same devbox and `uri` from a CA that the server has never seen.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn issued_by_a_stranger(&self, uri: &str) -> Identity {
        let ca_key = KeyPair::generate().expect("a key can be made");
        let mut parameters = self.parameters();
        let name = uri.try_into().expect("the URI is ASCII");
        parameters.subject_alt_names = vec![SanType::URI(name)];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::new(CertificateParams::default(), ca_key);
        let leaf = parameters.signed_by(&self.key, &issuer).expect("the certificate can be signed");
        Identity { chain: vec![leaf.der().clone()], key: self.private_key() }
    }

    fn parameters(&self) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, self.devbox_id.as_str());
        parameters
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key has a PKCS #8 form")
    }
}

/// Reads the first certificate of a PEM text.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("the text holds a certificate")
}

/// The devbox listener, as one client sees it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where it is.
    pub address: SocketAddr,
    /// How to connect.
    pub client: Client,
}

impl Listener {
    /// The listener at `address`, without a certificate, trusting whatever it presents.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::new(Trust::Anything) }
    }

    /// The same with a certificate.
    #[must_use]
    pub fn identity(&self, identity: Identity) -> Self {
        Self { address: self.address, client: self.client.clone().identity(identity) }
    }

    /// `POST path` with a JSON body on a connection of its own.
    ///
    /// # Errors
    /// A refused handshake, or a connection that is closed instead of an answer.
    pub async fn post(&self, path: &str, bearer: Option<&str>, body: &Value) -> std::io::Result<Answer> {
        let stream = self.client.connect(self.address).await?;
        let mut connection = Connection::new(stream, Protocol::Http1).await.map_err(std::io::Error::other)?;
        let mut request = Request::post(path)
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body.to_string())).expect("the request is well-formed");
        connection.send(request).await.map_err(std::io::Error::other)
    }

    /// Redeems a join token.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn enroll(&self, join_token: &str, applicant: &Applicant) -> Answer {
        let body = json!({ "csr": applicant.request() });
        self.post(ENROLL_PATH, Some(join_token), &body).await.expect("the devbox listener answers")
    }

    /// Redeems a join token, and returns a listener that shows the certificate.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn enrolled(&self, join_token: &str, devbox_id: &str) -> Self {
        let applicant = Applicant::new(devbox_id);
        let answer = self.enroll(join_token, &applicant).await.expect(200).json();
        let issued = serde_json::from_value(answer).expect("the answer is an identity");
        self.identity(applicant.issued(&issued))
    }

    /// Asks for a new certificate.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn renew(&self, applicant: &Applicant) -> std::io::Result<Answer> {
        self.post(RENEW_PATH, None, &json!({ "csr": applicant.request() })).await
    }

    /// Asks for the bundle, without waiting.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn bundle(&self, known_revision: Option<u64>) -> std::io::Result<Answer> {
        self.post(BUNDLE_PATH, None, &bundle_request(known_revision, 0)).await
    }
}

/// A bundle request of a daemon that just started. `wait_ms`: how long it may be held.
#[must_use]
pub fn bundle_request(known_revision: Option<u64>, wait_ms: u32) -> Value {
    let started = Continuity { boot: "b".repeat(BOOT_LEN), after: None, step: "5".repeat(STEP_LEN) };
    bundle_request_after(&started, known_revision, wait_ms)
}

/// The same at any step.
#[must_use]
pub fn bundle_request_after(continuity: &Continuity, known_revision: Option<u64>, wait_ms: u32) -> Value {
    let key = STANDARD.encode(BundleKey::generate().public_key());
    json!({
        "hpke_public_key": key,
        "known_revision": known_revision,
        "wait_ms": wait_ms,
        "continuity": continuity,
    })
}
