//! TLS 1.3 of both listeners, key exchange X25519MLKEM768 where the client has it.
//!
//! The devbox listener's certificate comes from the devbox CA and is issued anew before it expires. It is sent with the
//! CA's own certificate, so that a client that knows only the CA's fingerprint finds the CA in the handshake. Client
//! certificates have to be from the devbox CA; whether there has to be one is each route's matter. Sessions are not
//! resumed: each connection verifies its client's certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::TlsFiles;
use crate::registry::{CaError, Registry};

/// How long the devbox listener's certificate lives. It is issued anew in its last third.
const LISTENER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// Why a listener has no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("{} is not readable as PEM: does it exist, may this user read it, is it a {what}?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not go together, or are of no use to a TLS server.
    #[error("the certificate {} and its key cannot be used together", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The devbox CA does not make a verifier or a certificate.
    #[error("the devbox CA cannot be used for TLS")]
    Ca(#[source] rustls::Error),
    /// The devbox CA does not make a verifier of client certificates.
    #[error("the devbox CA cannot be used to verify devboxes")]
    Verifier(#[source] VerifierBuilderError),
    /// The listener's certificate cannot be issued.
    #[error("the devbox listener's certificate cannot be issued: look at [devbox] server_names")]
    Issue(#[source] CaError),
}

/// TLS of the public listener, from files.
///
/// # Errors
/// [`TlsError::File`], [`TlsError::Pair`].
pub fn public_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |path: &PathBuf, what| {
        let path = path.clone();
        move |source| TlsError::File { path, what, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(unreadable(&files.certificate, "certificate chain, leaf first"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key, "private key"))?;
    let pair = |source| TlsError::Pair { path: files.certificate.clone(), source };
    let config = builder().map_err(pair)?.with_no_client_auth().with_single_cert(chain, key).map_err(pair)?;
    Ok(acceptor(config))
}

/// When the public listener's certificate ends, where its file can be read.
#[must_use]
pub fn public_certificate_end(files: &TlsFiles) -> Option<SystemTime> {
    let leaf = CertificateDer::from_pem_file(&files.certificate).ok()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    let end = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(end))
}

/// TLS of the devbox listener, from the devbox CA. `names` are the DNS names and IP addresses of its certificate.
///
/// # Errors
/// [`TlsError::Ca`], [`TlsError::Verifier`], [`TlsError::Issue`].
pub fn devbox_acceptor(registry: &Registry, names: Vec<String>) -> Result<TlsAcceptor, TlsError> {
    let verifier = devbox_verifier(registry)?;
    let resolver = DevboxCertificate::issue(registry.clone(), names)?;
    let mut config = builder()
        .map_err(TlsError::Ca)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(acceptor(config))
}

fn devbox_verifier(registry: &Registry) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(registry.ca().certificate_der().clone()).map_err(TlsError::Ca)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])
}

fn acceptor(mut config: ServerConfig) -> TlsAcceptor {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The devbox listener's certificate, issued anew in time.
struct DevboxCertificate {
    registry: Registry,
    names: Vec<String>,
    current: RwLock<Issued>,
}

#[derive(Clone)]
struct Issued {
    certified: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl DevboxCertificate {
    fn issue(registry: Registry, names: Vec<String>) -> Result<Self, TlsError> {
        let first = Issued::new(&registry, &names)?;
        Ok(Self { registry, names, current: RwLock::new(first) })
    }

    fn current(&self) -> Issued {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate for a handshake at `now`. Where a new one is due and cannot be had, the old one serves on.
    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let current = self.current();
        if now < current.renew_at {
            return current.certified;
        }
        match Issued::new(&self.registry, &self.names) {
            Ok(issued) => {
                tracing::info!("the devbox listener has a new certificate");
                let certified = Arc::clone(&issued.certified);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = issued;
                certified
            }
            Err(error) => {
                tracing::error!(%error, "the devbox listener's certificate was not renewed");
                current.certified
            }
        }
    }
}

impl Issued {
    fn new(registry: &Registry, names: &[String]) -> Result<Self, TlsError> {
        let identity =
            registry.ca().issue_server(names, LISTENER_CERTIFICATE_LIFETIME).map_err(TlsError::Issue)?;
        let certified =
            CertifiedKey::from_der(identity.chain, identity.key, &provider()).map_err(TlsError::Ca)?;
        registry.metrics().certificate_ends("devbox", identity.not_after);
        let renew_at = identity.not_after - LISTENER_CERTIFICATE_LIFETIME / 3;
        Ok(Self { certified: Arc::new(certified), renew_at })
    }
}

impl ResolvesServerCert for DevboxCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for DevboxCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevboxCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{KeyPolicy, open_registry};
    use crate::config::StateConfig;
    use crate::registry::Settings;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[tokio::test]
    async fn the_devbox_listeners_certificate_is_issued_anew_in_its_last_third() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateConfig::in_directory(&directory.path().join("state"));
        let registry = open_registry(&state, Settings::default(), KeyPolicy::Own).await.unwrap();
        let certificate = DevboxCertificate::issue(registry, vec!["localhost".to_owned()]).unwrap();
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let first = certificate.at(now);
        assert!(Arc::ptr_eq(&first, &certificate.at(now + 4 * day)));
        let second = certificate.at(now + 5 * day);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &certificate.at(now)), "and serves from then on");
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let files =
            TlsFiles { certificate: "/nonexistent/api.pem".into(), key: "/nonexistent/api.key".into() };
        let error = public_acceptor(&files).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("/nonexistent/api.pem"), "{error}");
    }
}
