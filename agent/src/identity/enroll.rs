//! One exchange for a certificate: a fresh key, a signing request, the server's answer.

use std::sync::Arc;
use std::time::Duration;

use devbox_secrets_proto::devbox::{ENROLL_PATH, EnrollRequest, IssuedIdentity, RENEW_PATH};
use devbox_secrets_proto::join_token::JoinToken;
use hyper::header::HeaderValue;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Identity, InvalidIdentity};
use crate::control_plane::pin::PinnedCa;
use crate::control_plane::{Client, Post, Refusal, Reply, ServerUrl, TransportError, tls};

/// Time for the server to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why no certificate was issued.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The server was not reached, or is not the right one.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server refused the join token.
    #[error(
        "the join token was not accepted: start the daemon with a fresh one, or pass it to devbox-secretsd resume"
    )]
    TokenRefused(#[source] Refusal),
    /// The server refused the renewal.
    #[error("the certificate was not renewed: was the devbox shut down?")]
    RenewalRefused(#[source] Refusal),
    /// The answer is not an identity.
    #[error("the server's answer is not an identity: are server and daemon of the same version?")]
    Answer(#[source] serde_json::Error),
    /// The certificate is for another devbox.
    #[error("the server issued a certificate for another devbox: register this one anew")]
    OtherDevbox,
    /// The certificate is unusable.
    #[error("the certificate that the server issued is unusable")]
    Unusable(#[from] InvalidIdentity),
    /// Key or request cannot be made.
    #[error("key or signing request cannot be made on this machine")]
    Key(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("TLS could not be set up on this machine")]
    Tls(#[from] rustls::Error),
}

impl EnrollError {
    /// Whether further attempts are useless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_permanent(),
            Self::TokenRefused(refusal) | Self::RenewalRefused(refusal) => refusal.is_permanent(),
            Self::Answer(_) | Self::OtherDevbox | Self::Unusable(_) | Self::Key(_) | Self::Tls(_) => true,
        }
    }
}

/// Redeems `token` at `url`, over a connection whose server the token pins.
///
/// # Errors
/// [`EnrollError`].
pub async fn redeem(url: &ServerUrl, token: &JoinToken) -> Result<Identity, EnrollError> {
    let config = tls::anonymous(Arc::new(PinnedCa::new(*token.ca_fingerprint())))?;
    let mut client = Client::new(url.clone(), Arc::new(config));
    let authorization = bearer(token);
    let fresh = FreshKey::generate(token.devbox_id())?;
    let reply = client.post(fresh.post(ENROLL_PATH, authorization.as_ref())).await?;
    fresh.into_identity(token.devbox_id(), reply, EnrollError::TokenRefused)
}

/// Asks for the devbox's next certificate over `client`, whose certificate is still valid.
///
/// # Errors
/// [`EnrollError`].
pub async fn renew(client: &mut Client, devbox_id: &str) -> Result<Identity, EnrollError> {
    let fresh = FreshKey::generate(devbox_id)?;
    let reply = client.post(fresh.post(RENEW_PATH, None)).await?;
    fresh.into_identity(devbox_id, reply, EnrollError::RenewalRefused)
}

/// `Bearer <token>`. Never `None`: every character of a token is valid in a header.
fn bearer(token: &JoinToken) -> Option<HeaderValue> {
    let printed = token.expose_token();
    let mut text = Zeroizing::new(Vec::with_capacity("Bearer ".len() + printed.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(printed.as_bytes());
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

struct FreshKey {
    key: KeyPair,
    csr: String,
}

impl FreshKey {
    fn generate(devbox_id: &str) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, devbox_id);
        let csr = params.serialize_request(&key)?.pem()?;
        Ok(Self { key, csr })
    }

    fn post<'a>(&self, path: &'static str, authorization: Option<&'a HeaderValue>) -> Post<'a> {
        let body = serde_json::json!(EnrollRequest { csr: self.csr.clone() }).to_string().into_bytes();
        Post { path, body, authorization, patience: PATIENCE, limit: MAX_ANSWER }
    }

    fn into_identity(
        self,
        devbox_id: &str,
        reply: Reply,
        refused: fn(Refusal) -> EnrollError,
    ) -> Result<Identity, EnrollError> {
        let body = reply.into_ok().map_err(refused)?;
        let issued: IssuedIdentity = serde_json::from_slice(&body).map_err(EnrollError::Answer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let identity = Identity::new(issued.certificate.as_bytes(), key, issued.ca.as_bytes())?;
        if identity.devbox_id() == devbox_id && issued.devbox_id == devbox_id {
            Ok(identity)
        } else {
            Err(EnrollError::OtherDevbox)
        }
    }
}
