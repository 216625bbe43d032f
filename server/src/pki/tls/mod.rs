//! TLS 1.3 of both listeners, key exchange X25519MLKEM768 if the client supports it. Sessions are
//! not resumed.
//!
//! - here: the public listener, from `files`;
//! - `devbox`: the devbox listener, from the devbox CAs; `verifier`: which client certificates it
//!   accepts.

mod devbox;
mod files;
mod verifier;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::sign::SingleCertAndKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

pub(crate) use devbox::devbox_tls;
pub(crate) use files::FileError;

use files::Pair;

use crate::clock::{TimeMs, milliseconds};
use crate::config::TlsFiles;
use crate::pki::CaError;

/// Why a listener has no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The public listener's certificate or key cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cryptography does not offer TLS 1.3.
    #[error("TLS 1.3 is unavailable")]
    Provider(#[source] rustls::Error),
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
#[derive(Debug)]
pub(crate) struct PublicTls {
    pub(crate) config: ServerConfig,
    /// The earliest end of a certificate in the chain.
    pub(crate) not_after: Option<SystemTime>,
}

/// Checks the files of the public listener for a start or a reload.
///
/// # Errors
/// [`FileError`], also if a certificate has expired or is not valid yet.
pub(crate) fn check_public(files: &TlsFiles) -> Result<(), TlsError> {
    reloaded_public_tls(files).map(drop)
}

/// TLS of a server that starts. Certificates with wrong dates are logged, not refused: the
/// devboxes' listener has others, and devboxes must not wait for this one's.
///
/// # Errors
/// [`FileError`].
pub(crate) fn public_tls(files: &TlsFiles) -> Result<PublicTls, TlsError> {
    let pair = Pair::load(files)?;
    if let Err(error) = pair.check_dates() {
        tracing::error!(%error, "clients of the public listener will refuse its certificate");
    }
    public(pair)
}

/// TLS of a running server, which keeps what it has unless the new files are good.
///
/// # Errors
/// As [`check_public`].
pub(crate) fn reloaded_public_tls(files: &TlsFiles) -> Result<PublicTls, TlsError> {
    public(Pair::load(files)?.into_valid()?)
}

fn public(pair: Pair) -> Result<PublicTls, TlsError> {
    let not_after = pair.not_after;
    let resolver = Arc::new(SingleCertAndKey::from(pair.certified));
    let config = builder().map_err(TlsError::Provider)?.with_no_client_auth().with_cert_resolver(resolver);
    Ok(PublicTls { config: finish(config), not_after })
}

/// The TLS of a listener, which a reload may replace. Open connections keep theirs.
#[derive(Clone)]
pub(crate) struct TlsSource(Arc<ArcSwap<ServerConfig>>);

impl TlsSource {
    /// A source of `config`.
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// Serves new connections with `config`.
    pub(crate) fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }

    /// For one handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])
}

/// Settings of both listeners. Without session storage and tickets every connection is a whole
/// handshake: no key of an earlier one stays in memory.
fn finish(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

fn unix_time_ms(time: UnixTime) -> TimeMs {
    milliseconds(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
