//! The devbox CA is changed beside a running server, by the program that operators use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devbox_secrets_common::verify_signatures_with;
use devbox_secrets_proto::ca_name::ca_name;
use devbox_secrets_proto::seal::BundleKey;
use devbox_secrets_tests::devbox::Applicant;
use devbox_secrets_tests::tls::roots;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DistinguishedName, Error};
use serde_json::Value;

use crate::devbox_listener::{bundle_request, enrolled, enrolment, register};
use crate::program::Dev;
use crate::support::{self, TestServer};
use crate::upkeep::{empty_with_key_of, execute, fail, run, succeed};

/// Verifies as a daemon does, and sends the names of trusted CAs that the test chooses.
#[derive(Debug)]
struct Naming {
    verifier: Arc<WebPkiServerVerifier>,
    names: Vec<DistinguishedName>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Naming {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    verify_signatures_with!(provider);

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

/// Trusts one CA.
fn trusting(ca: &CertificateDer<'static>, names: Vec<DistinguishedName>) -> Arc<dyn ServerCertVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)), provider);
    Arc::new(Naming { verifier: verifier.build().unwrap(), names, provider: aws_lc_rs::default_provider() })
}

/// An anonymous client that trusts one CA.
fn naming(ca: &CertificateDer<'static>, names: Vec<DistinguishedName>) -> ClientConfig {
    let mut config = support::trusting(ca);
    config.dangerous().set_certificate_verifier(trusting(ca, names));
    config
}

fn subjects(ca: &CertificateDer<'static>) -> Vec<DistinguishedName> {
    roots(ca).subjects()
}

fn state(server: &TestServer) -> PathBuf {
    server.state.path().join("state")
}

/// Does what an operator does, and waits until the server has followed. Returns the fingerprints
/// that are trusted then.
async fn ca(server: &TestServer, args: &[&str]) -> Vec<String> {
    let printed = succeed(&state(server), &[&["ca", "--json"], args].concat());
    let trusted: Value = serde_json::from_str(&printed).unwrap();
    let trusted = trusted.as_array().unwrap().iter().map(|ca| ca["fingerprint"].as_str().unwrap().to_owned());
    let trusted: Vec<_> = trusted.collect();
    let followed = async {
        while fingerprints(server) != trusted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), followed).await.expect("the server follows");
    trusted
}

fn fingerprints(server: &TestServer) -> Vec<String> {
    server.registry.list_cas().into_iter().map(|ca| ca.fingerprint).collect()
}

#[tokio::test]
async fn a_client_is_shown_the_chain_of_the_ca_that_it_trusts_and_by_default_the_newest() {
    let server = TestServer::start().await;
    let old = server.registry.ca();
    ca(&server, &["rotate"]).await;
    let new = server.registry.ca();
    for ca in [&old, &new] {
        let by_fingerprint = DistinguishedName::in_sequence(&ca_name(ca.fingerprint()));
        for name in [subjects(ca.certificate_der()).remove(0), by_fingerprint] {
            let stream = server.tls(naming(ca.certificate_der(), vec![name])).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(&session.peer_certificates().unwrap()[1], ca.certificate_der());
        }
    }
    let silent = |ca: &CertificateDer<'static>| support::trusting(ca);
    server.tls(silent(new.certificate_der())).await.unwrap();
    assert!(server.tls(silent(old.certificate_der())).await.is_err());
}

#[tokio::test]
async fn a_join_token_and_a_certificate_from_before_a_rotation_work_until_their_ca_is_retired() {
    let server = TestServer::start().await;
    let old = server.registry.ca();
    let (_, mut client) = enrolled(&server).await;
    let (id, token) = register(&server).await;
    let (_, unused) = register(&server).await;
    let trusted = ca(&server, &["rotate"]).await;
    let bundle = || bundle_request(&BundleKey::generate(), None, 0);
    let named = vec![DistinguishedName::in_sequence(&ca_name(old.fingerprint()))];
    let anonymous = naming(old.certificate_der(), named);

    let joined = server
        .devbox_call(anonymous.clone(), enrolment(&token, &Applicant::new(&id).request()))
        .await
        .unwrap()
        .expect(200);
    assert_eq!(joined.text("ca").matches("BEGIN CERTIFICATE").count(), 2);
    // The certificate from before, on a connection that names the CA from before.
    client
        .dangerous()
        .set_certificate_verifier(trusting(old.certificate_der(), subjects(old.certificate_der())));
    server.devbox_call(client.clone(), bundle()).await.unwrap().expect(200);

    ca(&server, &["retire", &trusted[1]]).await;
    assert!(server.devbox_call(client, bundle()).await.is_err(), "it trusts only what is gone");
    assert!(server.devbox_call(anonymous, enrolment(&unused, "")).await.is_err());
}

#[tokio::test]
async fn a_retired_cas_certificate_does_not_pass_the_handshake_of_a_client_that_trusts_the_new_one() {
    let server = TestServer::start().await;
    let (_, mut client) = enrolled(&server).await;
    let trusted = ca(&server, &["rotate"]).await;
    let new = server.registry.ca();
    client
        .dangerous()
        .set_certificate_verifier(trusting(new.certificate_der(), subjects(new.certificate_der())));
    let bundle = || bundle_request(&BundleKey::generate(), None, 0);
    server.devbox_call(client.clone(), bundle()).await.unwrap().expect(200);
    ca(&server, &["retire", &trusted[1]]).await;
    assert!(server.devbox_call(client, bundle()).await.is_err());
}

#[tokio::test]
async fn every_ca_is_under_the_master_key_in_a_backup_and_in_a_check() {
    let server = TestServer::start().await;
    let (state, beside) = (state(&server), server.state.path().join("beside"));
    let trusted = ca(&server, &["rotate"]).await;
    succeed(&state, &["keys", "rotate", "--new-master-key", beside.to_str().unwrap()]);
    succeed(&state, &["check"]);
    let trusted = [ca(&server, &["rotate"]).await[0].clone(), trusted[0].clone(), trusted[1].clone()];
    assert_eq!(fingerprints(&server), trusted, "the server has followed both");
    let backup = beside.with_extension("backup");
    let restored = empty_with_key_of(&state, "restored");
    succeed(&state, &["backup", "--to", backup.to_str().unwrap()]);
    succeed(&restored, &["restore", "--from", backup.to_str().unwrap()]);
    let printed = succeed(&restored, &["ca", "list"]);
    assert!(trusted.iter().all(|fingerprint| printed.contains(fingerprint.as_str())), "{printed}");

    execute(
        &restored.join("state.sqlite3"),
        "UPDATE authorities SET wrapped_key = zeroblob(length(wrapped_key)) WHERE number = 1",
    )
    .await;
    assert!(
        !run(&restored, &["check"]).status.success(),
        "a damaged key of a CA that only waits for its end is found too"
    );
}

#[tokio::test]
async fn a_state_with_one_ca_from_before_rotations_is_changed_by_init_alone_and_keeps_its_ca() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    drop(Dev::start(&state));
    let before = succeed(&state, &["ca", "list"]);
    let database = state.join("state.sqlite3");
    for statement in [
        "INSERT INTO meta SELECT 'devbox-ca-certificate', certificate FROM authorities",
        "INSERT INTO meta SELECT 'devbox-ca-key', wrapped_key FROM authorities",
        "DROP TABLE authorities",
        "DELETE FROM _sqlx_migrations WHERE version = 3",
    ] {
        execute(&database, statement).await;
    }
    for command in [&["check"][..], &["ca", "list"]] {
        let refused = fail(&state, command);
        assert!(refused.contains("the schema 2 of an older version"), "{refused}");
    }
    succeed(&state, &["init"]);
    assert_eq!(succeed(&state, &["ca", "list"]), before);
    succeed(&state, &["check"]);
}
