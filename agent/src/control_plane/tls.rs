//! The TLS configuration of connections to the control plane: TLS 1.3, X25519MLKEM768 preferred, no resumption.
//!
//! The client names the CAs that it trusts (`certificate_authorities`, RFC 8446 section 4.2.4), because the server has a
//! certificate from each while the devbox CA is rotated.

use std::sync::Arc;

use devbox_secrets_common::verify_signatures_with;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DistinguishedName, Error, RootCertStore};

use super::pin::WrongPin;

/// The only application protocol (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The cryptography of every connection: aws-lc, whose first key exchange is X25519MLKEM768.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A configuration without a client certificate, for the first connection of all.
///
/// # Errors
/// [`rustls::Error`] if the provider lacks TLS 1.3.
pub(crate) fn anonymous(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let config = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(finish(config))
}

/// A configuration with a client certificate, that trusts `roots` only.
///
/// # Errors
/// [`rustls::Error`] if the provider lacks TLS 1.3, or `roots` is empty.
pub(crate) fn mutual(roots: RootCertStore, certified_key: CertifiedKey) -> Result<ClientConfig, Error> {
    let verifier = TrustedCas::new(roots)?;
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key)));
    Ok(finish(config))
}

/// The usual verification of a server against CAs, whose names are sent to the server.
#[derive(Debug)]
struct TrustedCas {
    names: Vec<DistinguishedName>,
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl TrustedCas {
    fn new(roots: RootCertStore) -> Result<Self, Error> {
        Ok(Self { names: roots.subjects(), verifier: verifier(roots)?, provider: provider() })
    }
}

/// The usual verification of a server: name, time, purpose, signatures, up to one of `roots`.
///
/// # Errors
/// [`rustls::Error`] if there are none.
pub(crate) fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

impl ServerCertVerifier for TrustedCas {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    verify_signatures_with!(provider);

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])
}

/// Without resumption: each connection proves both certificates again, and no session secret stays in memory.
fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

#[must_use]
pub(crate) fn remedy(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(problem) => certificate_remedy(problem),
        Error::InvalidMessage(_) => {
            "does the URL name the server's devbox listener, and does that speak TLS?"
        }
        Error::AlertReceived(_) => {
            "the server refused this devbox's certificate or TLS version: join anew if the devbox was shut down \
             or the certificate has expired"
        }
        _ => "does a proxy between devbox and server terminate TLS?",
    }
}

fn certificate_remedy(problem: &CertificateError) -> &'static str {
    use CertificateError as Problem;
    match problem {
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            "the server's certificate is for another name: use a host that its [devbox] server_names lists"
        }
        Problem::Expired | Problem::ExpiredContext { .. } => {
            "the server's certificate has expired: check the devbox's clock, then the server"
        }
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check the devbox's clock"
        }
        _ => "the server's certificate is not from the devbox CA: check the URL and the CA's file",
    }
}

/// Whether the server is not the one that the join token pins.
pub(super) fn is_wrong_pin(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    other.0.is::<WrongPin>()
}

/// Whether retries of a failed handshake are useless until an operator changes something.
#[must_use]
pub(crate) fn is_permanent(error: &Error) -> bool {
    use CertificateError as Problem;
    let clock = |problem: &Problem| {
        matches!(
            problem,
            Problem::Expired
                | Problem::ExpiredContext { .. }
                | Problem::NotValidYet
                | Problem::NotValidYetContext { .. }
        )
    };
    matches!(error, Error::InvalidCertificate(problem) if !clock(problem))
}
