//! TLS 1.3 of both listeners, key exchange X25519MLKEM768 where the client has it. Sessions are not resumed.
//!
//! - here: the public listener, from files;
//! - `devbox`: the devbox listener, from the devbox CAs; `verifier`: whom it believes.

mod devbox;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::VerifierBuilderError;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

pub use devbox::devbox_acceptor;

use crate::config::TlsFiles;
use crate::registry::CaError;
use crate::store::TimeMs;

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

fn milliseconds(time: UnixTime) -> TimeMs {
    TimeMs::try_from(time.as_secs()).map_or(TimeMs::MAX, |seconds| seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let files =
            TlsFiles { certificate: "/nonexistent/api.pem".into(), key: "/nonexistent/api.key".into() };
        let error = public_acceptor(&files).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("/nonexistent/api.pem"), "{error}");
    }
}
