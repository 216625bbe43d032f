//! This devbox's identity to the control plane: a certificate, its key, and the CA that both sides trust.
//!
//! It comes from a one-time join token ([`join`]) or from files ([`files`]), is renewed before it expires ([`enroll`]),
//! and is kept in memory only, never on a disk.

pub(crate) mod certificate;
pub mod enroll;
pub mod files;
pub(crate) mod join;
pub mod token;
pub(crate) mod tried_tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tracing::info;

use crate::control_plane::tls;

pub(crate) use certificate::Validity;
pub(crate) use tried_tokens::TriedTokens;

/// The configured source of the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A join token, from a file or, for `None`, from standard input.
    JoinToken(Option<PathBuf>),
    /// A ready certificate.
    Files(files::Files),
}

impl Source {
    /// The files that it is read from, at the start and at a resume.
    #[must_use]
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Self::JoinToken(path) => path.iter().map(PathBuf::as_path).collect(),
            Self::Files(files) => vec![&files.certificate, &files.key, &files.ca],
        }
    }
}

#[derive(Debug)]
pub(crate) enum InitialIdentity {
    Token(JoinToken),
    Ready(Identity),
}

/// Why the identity cannot be read.
#[derive(Debug, Error)]
pub enum InitialIdentityError {
    /// The join token cannot be read.
    #[error(transparent)]
    Token(#[from] token::TokenError),
    /// The certificate files cannot be read.
    #[error(transparent)]
    Files(#[from] files::FilesError),
}

/// Reads from `source`. Blocks on files, or on standard input.
///
/// # Errors
/// [`InitialIdentityError`].
pub(crate) fn read(source: &Source) -> Result<InitialIdentity, InitialIdentityError> {
    Ok(match source {
        Source::JoinToken(path) => InitialIdentity::Token(token::read(path.as_ref())?),
        Source::Files(files) => InitialIdentity::Ready(files::load(files)?),
    })
}

/// Reads from `source` in a running daemon: from regular files only, because a pipe could block for ever.
///
/// # Errors
/// [`InitialIdentityError`].
pub(crate) fn read_again(source: &Source) -> Result<InitialIdentity, InitialIdentityError> {
    match source {
        Source::JoinToken(Some(path)) => Ok(InitialIdentity::Token(token::read_regular(path)?)),
        source => read(source),
    }
}

/// Reads from `source`, unless the identity that a predecessor `kept` replaces it: the result of that join token, or a renewal of
/// that certificate. A token that was not tried yet wins. Blocks: call before the runtime runs.
///
/// # Errors
/// [`InitialIdentityError`].
pub(crate) fn read_or_keep(
    source: &Source,
    kept: Option<Identity>,
) -> Result<InitialIdentity, InitialIdentityError> {
    match (source, kept) {
        (Source::JoinToken(path), Some(kept)) => {
            let fresh = path.as_ref().and_then(|path| fresh_token(path, kept.tried_tokens()));
            Ok(fresh.map_or(InitialIdentity::Ready(kept), InitialIdentity::Token))
        }
        (Source::Files(files), Some(kept)) => {
            let read = files::load(files)?;
            Ok(InitialIdentity::Ready(if kept.succeeds(&read) { kept } else { read }))
        }
        (source, None) => read(source),
    }
}

/// The token in the file at `path`, if it is known not to have been tried. A missing or invalid file does not matter to a daemon
/// that has joined.
fn fresh_token(path: &Path, tried: &TriedTokens) -> Option<JoinToken> {
    let token = token::read_regular(path).ok()?;
    let is_fresh = !tried.is_empty() && !tried.has(&token);
    if is_fresh {
        info!(path = %path.display(), "a fresh join token replaces the predecessor's identity");
    }
    is_fresh.then_some(token)
}

/// Why certificates and a key are not an identity.
#[derive(Debug, Error)]
pub enum InvalidIdentity {
    /// No certificate among the PEM sections, or a broken one.
    #[error("{what} has no certificate in PEM form: check the file, or register the devbox again")]
    Pem {
        /// The owner of the certificate.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// The devbox's certificate is not a devbox's.
    #[error("the devbox's certificate is unusable")]
    Certificate(#[from] certificate::InvalidCertificate),
    /// The key does not fit the certificate, or TLS does not know its kind.
    #[error("certificate, key and CA do not fit together: are all three of one devbox?")]
    Mismatch(#[from] rustls::Error),
}

/// An identity, ready for connections.
#[derive(Debug, Clone)]
pub struct Identity {
    devbox_id: String,
    validity: Validity,
    config: Arc<ClientConfig>,
    parts: Arc<Parts>,
    tried: TriedTokens,
}

/// The parts of an identity, for a successor of this process. The key is wiped when dropped.
#[derive(Debug)]
struct Parts {
    chain: Vec<u8>,
    key: SecretBytes,
    ca: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Material<'a> {
    pub chain: &'a [u8],
    /// The first one's private key, DER, in the form that it came in.
    pub key: &'a SecretBytes,
    pub ca: &'a [u8],
}

impl Identity {
    /// Makes an identity. `chain` and `ca` are PEM; `key` must be the chain's first certificate's.
    ///
    /// # Errors
    /// [`InvalidIdentity`].
    pub fn new(chain: &[u8], key: PrivateKeyDer<'static>, ca: &[u8]) -> Result<Self, InvalidIdentity> {
        let key_bytes = SecretBytes::new(key.secret_der().to_vec());
        let parts = Arc::new(Parts { chain: chain.to_vec(), key: key_bytes, ca: ca.to_vec() });
        let chain = certificates("the devbox's certificate", chain)?;
        let facts = certificate::inspect(&chain[0])?;
        let certified_key = CertifiedKey::from_der(chain, key, &tls::provider())?;
        let config = Arc::new(tls::mutual(roots(ca)?, certified_key)?);
        Ok(Self {
            devbox_id: facts.devbox_id,
            validity: facts.validity,
            config,
            parts,
            tried: TriedTokens::default(),
        })
    }

    /// The same, with the join tokens that the daemon has tried.
    #[must_use]
    pub(crate) fn with_tried_tokens(self, tried: TriedTokens) -> Self {
        Self { tried, ..self }
    }

    #[must_use]
    pub(crate) fn tried_tokens(&self) -> &TriedTokens {
        &self.tried
    }

    #[must_use]
    pub(crate) fn material(&self) -> Material<'_> {
        Material { chain: &self.parts.chain, key: &self.parts.key, ca: &self.parts.ca }
    }

    /// Whether it is for the same devbox and valid for longer.
    fn succeeds(&self, other: &Self) -> bool {
        self.devbox_id == other.devbox_id && self.validity.not_after_ms > other.validity.not_after_ms
    }

    /// The devbox's id.
    #[must_use]
    pub fn devbox_id(&self) -> &str {
        &self.devbox_id
    }

    /// The certificate's validity.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The TLS configuration of connections to the control plane.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn roots(ca: &[u8]) -> Result<RootCertStore, InvalidIdentity> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA", ca)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidIdentity> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(InvalidIdentity::Pem { what, source: None }),
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(InvalidIdentity::Pem { what, source: Some(source) }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn identity() -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI("spiffe://test/devbox/dbx_1".try_into().unwrap())];
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Identity::new(certificate.as_bytes(), der, certificate.as_bytes()).unwrap()
    }

    fn token(secret: &str) -> JoinToken {
        JoinToken::new("dbx_1", SecretBytes::new(secret.as_bytes().to_vec()), [0; 32]).unwrap()
    }

    #[test]
    fn a_restart_uses_a_fresh_join_token_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut tried = TriedTokens::default();
        for secret in ["first", "resumed"] {
            tried.note(&token(secret));
        }
        let started = |text: Option<JoinToken>, tried: &TriedTokens| {
            let _ = std::fs::remove_file(&path);
            if let Some(token) = text {
                std::fs::write(&path, &*token.expose_token()).unwrap();
            }
            let kept = identity().with_tried_tokens(tried.clone());
            read_or_keep(&Source::JoinToken(Some(path.clone())), Some(kept)).unwrap()
        };
        for secret in ["first", "resumed"] {
            assert!(matches!(started(Some(token(secret)), &tried), InitialIdentity::Ready(_)));
        }
        assert!(matches!(started(None, &tried), InitialIdentity::Ready(_)), "the file may be gone");
        assert!(matches!(started(Some(token("fresh")), &TriedTokens::default()), InitialIdentity::Ready(_)));
        let InitialIdentity::Token(taken) = started(Some(token("fresh")), &tried) else {
            panic!("the fresh token is ignored")
        };
        assert_eq!(*taken.expose_token(), *token("fresh").expose_token());
    }
}
