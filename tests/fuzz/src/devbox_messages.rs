//! The JSON messages between daemon and control plane, each handed to whom it is for: requests to a real server, an
//! issued identity to the daemon.

use std::sync::LazyLock;

use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::devbox::{BundleRequest, EnrollRequest, ErrorBody, IssuedIdentity};
use devbox_secrets_proto::secret::SecretBytes;
use devbox_secrets_server::registry::{Refusal, RefusalKind};
use devbox_secretsd::identity::Identity;
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::assert_message;
use crate::control_plane::{SECRET, with_server};

/// The daemon's key, PKCS #8.
static KEY: LazyLock<Vec<u8>> =
    LazyLock::new(|| KeyPair::generate().expect("the system has random numbers").serialize_der());

/// Reads `bytes` as each of the messages.
///
/// # Panics
/// If a message is another once written, the server fails instead of refusing, or a refusal repeats a secret.
pub fn check(bytes: &[u8]) {
    if let Some(request) = message::<EnrollRequest>(bytes) {
        enroll(&request);
    }
    if let Some(request) = message::<BundleRequest>(bytes) {
        fetch(&BundleRequest { wait_ms: 0, ..request });
    }
    if let Some(issued) = message::<IssuedIdentity>(bytes) {
        accept(&issued);
    }
    message::<ErrorBody>(bytes);
}

/// A message that is read has one form.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&message).expect("a message is written");
    let again: T = serde_json::from_slice(&written).expect("a written message is read");
    assert_eq!(serde_json::to_vec(&again).expect("a message is written"), written);
    Some(message)
}

/// Only the devbox's own daemon can make a request that is granted.
fn enroll(request: &EnrollRequest) {
    with_server(|server| {
        let bearer = SecretBytes::new(server.join_token.expose_token().as_bytes().to_vec());
        let enrolled = server.wait_for(server.registry().enroll(&bearer, &request.csr, None));
        check_refusal(&enrolled.expect_err("no input knows the devbox's id"));
        let renewed = server.wait_for(server.registry().renew(&server.peer, &request.csr));
        check_refusal(&renewed.expect_err("no input knows the devbox's id"));
    });
}

fn fetch(request: &BundleRequest) {
    with_server(|server| match server.wait_for(server.registry().bundle(&server.peer, request)) {
        Ok(Some(bundle)) => {
            let bundle = Bundle::parse(&bundle).expect("the daemon understands what the server sends");
            assert!(bundle.entries.iter().all(|entry| entry.label.env == SECRET), "another account's secret");
        }
        Ok(None) => assert!(request.known_revision.is_some(), "the first bundle is always sent"),
        Err(refusal) => check_refusal(&refusal),
    });
}

fn check_refusal(refusal: &Refusal) {
    assert!(refusal.kind() != RefusalKind::Internal, "the server failed: {:?}", refusal.detail());
    assert_message(refusal.message());
}

/// A certificate for another key than the daemon's own is never taken.
fn accept(issued: &IssuedIdentity) {
    let key = PrivatePkcs8KeyDer::from(KEY.clone());
    let identity = Identity::new(issued.certificate.as_bytes(), key.into(), issued.ca.as_bytes());
    assert_message(&identity.expect_err("no input knows the daemon's key").to_string());
}
