//! TLS 1.3 clients of the devbox listener: with any certificate or none, trusting anything or one CA.

use std::net::SocketAddr;
use std::sync::Arc;

use devbox_secrets_common::verify_signatures_with;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// The leaf, then what is above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// The servers that a client trusts.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Anything: for a look at what the server presents.
    Anything,
    /// Certificates of this CA for the right name.
    Ca(CertificateDer<'static>),
}

/// A TLS client.
#[derive(Debug, Clone)]
pub struct Client {
    /// The servers that it trusts.
    pub trust: Trust,
    /// The certificate that it shows.
    pub identity: Option<Identity>,
}

impl Client {
    /// A client without a certificate that speaks TLS 1.3 and trusts `trust`.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, identity: None }
    }

    /// The same with a certificate.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Connects and shakes hands. In TLS 1.3 a server's refusal of a client's certificate comes only with the first read.
    ///
    /// # Errors
    /// A refusal by either side.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.shake_hands(TcpStream::connect(address).await?, address).await
    }

    /// The same over a connection that is there already.
    ///
    /// # Errors
    /// A refusal by either side.
    pub async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.config()));
        connector.connect(ServerName::from(address.ip()), stream).await
    }

    /// The configuration of rustls.
    ///
    /// # Panics
    /// If the identity's key does not fit its certificate.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites of TLS 1.3");
        let builder = match &self.trust {
            Trust::Anything => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TakesAnything(provider())))
            }
            Trust::Ca(ca) => builder.with_root_certificates(roots(ca)),
        };
        match self.identity.clone() {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => builder
                .with_client_auth_cert(chain, key)
                .expect("the key is of a kind that rustls signs with"),
        }
    }
}

/// Content type of an alert (RFC 8446 section 5.1).
pub const ALERT: u8 = 21;

/// The first message of a client that knows nothing newer than TLS 1.2 (RFC 5246 section 7.4.1.2), in its record. Made by
/// hand: a library that could speak it would bring it into the programs under test as well.
#[must_use]
pub fn client_hello_of_tls_1_2() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f];
    let groups = [0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17];
    let signatures = [0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03];
    let extensions = with_length(&[groups, signatures].concat());
    let no_session = vec![0];
    let no_compression = vec![1, 0];
    let version_and_random = [vec![3, 3], vec![7; 32]].concat();
    let hello = [version_and_random, no_session, with_length(&suites), no_compression, extensions].concat();
    let message = [vec![1, 0], with_length(&hello)].concat();
    [vec![22, 3, 1], with_length(&message)].concat()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("the message is short");
    [length.to_be_bytes().as_slice(), bytes].concat()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The roots of a verifier that trusts this CA alone.
///
/// # Panics
/// If the certificate is malformed.
#[must_use]
pub fn roots(ca: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).expect("the CA's certificate is well-formed");
    roots
}

/// Checks that the server has the key of the certificate that it presents, and nothing else.
#[derive(Debug)]
struct TakesAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures_with!(0);
}
