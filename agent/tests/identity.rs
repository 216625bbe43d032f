//! Joining: whom the daemon trusts, and what it does when it must not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use devbox_secretsd::control_plane::{Client, TransportError};
use devbox_secretsd::identity::enroll::{EnrollError, redeem, renew};
use devbox_secretsd::identity::files::{self, Files};
use devbox_secretsd::sys::now_ms;
use devbox_secretsd::telemetry::chain;
use hyper::StatusCode;

use devbox_secrets_tests::authority::{Authority, DEVBOX, TOKEN_SECRET, Validity};
use support::control_plane::{ControlPlane, Script, bundle};

fn nothing() -> Script {
    bundle(1, &[])
}

#[tokio::test]
async fn a_token_is_redeemed_for_an_identity_that_the_server_then_knows() {
    let plane = ControlPlane::start(nothing()).await;
    let identity = redeem(&plane.url(), &plane.authority.token()).await.unwrap();
    assert_eq!(identity.devbox_id(), DEVBOX);
    assert!(identity.validity().not_after_ms > now_ms());
    let mut client = Client::new(plane.url(), identity.config());
    assert_eq!(renew(&mut client, DEVBOX).await.unwrap().devbox_id(), DEVBOX);
    assert_eq!((plane.seen().enrolled, plane.seen().renewed), (1, 1));
}

#[tokio::test]
async fn another_servers_ca_is_refused_for_good_before_the_token_is_sent() {
    let plane = ControlPlane::start(nothing()).await;
    let error = redeem(&plane.url(), &Authority::generate().token()).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(chain(&error).contains("not the server that the join token was made for"), "{}", chain(&error));
    assert_eq!(plane.seen().enrolled, 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let plane = ControlPlane::start_as("elsewhere.example", Validity::NORMAL, nothing()).await;
    let error = redeem(&plane.url(), &plane.authority.token()).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(error.to_string().contains("server_names"), "{error}");
    assert_eq!(plane.seen().enrolled, 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_may_get_better() {
    let plane = ControlPlane::start_as("127.0.0.1", Validity::EXPIRED, nothing()).await;
    let error = redeem(&plane.url(), &plane.authority.token()).await.unwrap_err();
    assert!(!error.is_permanent());
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(plane.seen().enrolled, 0);
}

#[tokio::test]
async fn a_used_token_ends_it_and_an_overloaded_server_does_not() {
    let plane = ControlPlane::start(nothing()).await;
    *plane.enrol_refusal.lock().unwrap() =
        Some((StatusCode::UNAUTHORIZED, "the join token was used already"));
    let error = redeem(&plane.url(), &plane.authority.token()).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(chain(&error).contains("used already"), "{}", chain(&error));
    assert!(!format!("{error:?} {}", chain(&error)).contains(TOKEN_SECRET));

    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "later"));
    assert!(!redeem(&plane.url(), &plane.authority.token()).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come() {
    let plane = ControlPlane::start(nothing()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = redeem(&nobody, &plane.authority.token()).await.unwrap_err();
    assert!(matches!(error, EnrollError::Transport(TransportError::Connect { .. })), "{error}");
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_named_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    });
    let error = redeem(&url, &Authority::generate().token()).await.unwrap_err();
    assert!(error.to_string().contains("speak TLS"), "{error}");
}

#[test]
fn files_make_an_identity_only_if_they_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = Authority::generate();
    let (certificate, key) = authority.devbox(DEVBOX, Validity::NORMAL);
    let (_, other_key) = authority.devbox(DEVBOX, Validity::NORMAL);
    let files = Files {
        certificate: write("cert.pem", &certificate),
        key: write("key.pem", &key),
        ca: write("ca.pem", &authority.pem),
    };
    assert_eq!(files::load(&files).unwrap().devbox_id(), DEVBOX);

    let mismatch = Files { key: write("other.pem", &other_key), ..files.clone() };
    assert!(chain(&files::load(&mismatch).unwrap_err()).contains("fit together"));
    let swapped = Files { certificate: files.ca.clone(), key: files.key.clone(), ca: files.ca.clone() };
    assert!(chain(&files::load(&swapped).unwrap_err()).contains("names no devbox"));
    let no_key = Files { key: files.ca.clone(), ..files };
    assert!(files::load(&no_key).unwrap_err().to_string().contains("no private key"));
}
