//! The public listener over TLS: HTTP/2 or HTTP/1.1, as the client says by ALPN.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use devbox_secrets_server::config::TlsFiles;
use devbox_secrets_tests::client::exchange;
use rustls::HandshakeKind;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Protocol, TestServer, get, send, trusting};

/// A certificate for `localhost` and its key, as files.
pub(crate) fn self_signed(directory: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: directory.join("api.pem"), key: directory.join("api.key") };
    std::fs::write(&files.certificate, issued.cert.pem()).unwrap();
    std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
    (files, issued.cert.der().clone())
}

#[tokio::test]
async fn the_protocol_is_chosen_by_alpn() {
    let directory = tempfile::tempdir().unwrap();
    let (files, certificate) = self_signed(directory.path());
    let server = TestServer::start_with(|config| config.api.tls = Some(files)).await;
    assert!(server.bound.api_url().starts_with("https://"));
    for (offered, http) in [(&b"h2"[..], Protocol::Http2), (b"http/1.1", Protocol::Http1)] {
        let mut config = trusting(&certificate);
        config.alpn_protocols = vec![offered.to_vec()];
        let stream = TcpStream::connect(server.bound.api).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(offered));
        let call = get("/v1/secrets").header("authorization", &format!("Bearer {}", server.token));
        send(http, stream, call).await.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_client_without_tls_is_never_answered_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = self_signed(directory.path());
    let server = TestServer::start_with(|config| config.api.tls = Some(files)).await;
    let stream = TcpStream::connect(server.bound.api).await.unwrap();
    let answer = exchange(stream, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let (files, certificate) = self_signed(directory.path());
    let server = TestServer::start_with(|config| config.api.tls = Some(files)).await;
    // One client's configuration keeps the tickets that it gets.
    let connector = TlsConnector::from(Arc::new(trusting(&certificate)));
    for _ in 0..2 {
        let stream = TcpStream::connect(server.bound.api).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}
