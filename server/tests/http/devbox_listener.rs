//! The devbox listener over real TLS: who gets in, and what they get.

use crate::support::{Answer, Call, TestServer, get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::devbox::{
    BOOT_LEN, BUNDLE_MEDIA_TYPE, BUNDLE_PATH, ENROLL_PATH, RENEW_PATH, STEP_LEN,
};
use devbox_secrets_proto::seal::{BundleKey, Context};
use devbox_secrets_tests::devbox::Applicant;
use devbox_secrets_tests::tls::Identity;
use devbox_secrets_tests::wait::DEADLINE;
use rustls::ClientConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A registered devbox and its join token.
pub(crate) async fn register(server: &TestServer) -> (String, String) {
    let created = server.call(post("/v1/devboxes", "{}")).await.expect(200);
    (created.text("id"), created.text("join_token"))
}

pub(crate) fn enrolment(token: &str, csr: &str) -> Call {
    post(ENROLL_PATH, &json!({"csr": csr}).to_string()).header("authorization", &format!("Bearer {token}"))
}

pub(crate) async fn enrolled(server: &TestServer) -> (String, ClientConfig) {
    let (id, token) = register(server).await;
    let applicant = Applicant::new(&id);
    let call = enrolment(&token, &applicant.request());
    let answer = server.devbox_call(server.anonymous(), call).await.unwrap().expect(200);
    (id, server.identified(issued(&applicant, &answer)))
}

fn issued(applicant: &Applicant, answer: &Answer) -> Identity {
    applicant.issued(&serde_json::from_slice(&answer.body).unwrap())
}

pub(crate) fn bundle_request(key: &BundleKey, known: Option<u64>, wait_ms: u32) -> Call {
    let key = STANDARD.encode(key.public_key());
    let started = json!({"boot": "b".repeat(BOOT_LEN), "after": null, "step": "5".repeat(STEP_LEN)});
    let body =
        json!({"hpke_public_key": key, "known_revision": known, "wait_ms": wait_ms, "continuity": started});
    post(BUNDLE_PATH, &body.to_string())
}

fn value_of(answer: &Answer, key: &BundleKey, devbox_id: &str) -> (u64, Vec<u8>) {
    assert_eq!(answer.header("content-type"), BUNDLE_MEDIA_TYPE);
    let bundle = Bundle::parse(&answer.body).unwrap();
    let count = u32::try_from(bundle.entries.len()).unwrap();
    let context = Context { devbox_id, revision: bundle.revision, count };
    let mut opener = key.opener(bundle.encapped_key, context).unwrap();
    let entry = bundle.entries[0];
    let mut value = vec![0; entry.value_len()];
    opener.open_into(entry.label, entry.sealed, &mut value).unwrap();
    (bundle.revision, value)
}

#[tokio::test]
async fn a_join_token_becomes_a_certificate_and_a_certificate_the_sealed_values() {
    let server = TestServer::start().await;
    server.call(post("/v1/secrets", r#"{"name": "A", "value": "the value"}"#)).await.expect(200);
    let (id, client) = enrolled(&server).await;
    let key = BundleKey::generate();
    let answer = server.devbox_call(client.clone(), bundle_request(&key, None, 0)).await.unwrap().expect(200);
    let (revision, value) = value_of(&answer, &key, &id);
    assert_eq!(value, b"the value");
    assert!(!answer.body.windows(9).any(|window| window == b"the value"), "sealed inside TLS too");
    let unchanged = bundle_request(&key, Some(revision), 0);
    assert_eq!(server.devbox_call(client, unchanged).await.unwrap().status, 204);
}

#[tokio::test]
async fn a_bundle_of_many_frames_arrives_whole() {
    let server = TestServer::start().await;
    let value = "0123456789".repeat(12_000);
    let body = json!({"name": "A", "value": value}).to_string();
    server.call(post("/v1/secrets", &body)).await.expect(200);
    let (id, client) = enrolled(&server).await;
    let key = BundleKey::generate();
    let answer = server.devbox_call(client, bundle_request(&key, None, 0)).await.unwrap();
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert_eq!(value_of(&answer, &key, &id).1, value.as_bytes());
}

#[tokio::test]
async fn a_stopping_server_renews_no_lease_of_a_held_request() {
    let server = TestServer::start().await;
    let (_, client) = enrolled(&server).await;
    let key = BundleKey::generate();
    let first = server.devbox_call(client.clone(), bundle_request(&key, None, 0)).await.unwrap().expect(200);
    let revision = Bundle::parse(&first.body).unwrap().revision;
    let stream = server.tls(client).await.unwrap();
    let (read, mut write) = tokio::io::split(stream);
    let call = bundle_request(&key, Some(revision), 60_000);
    let head = format!(
        "POST {BUNDLE_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        call.body.len()
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let mut read = read;
    let mut start = [0; 12];
    // The handler asks for the body, so the request is in flight.
    read.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 100");
    write.write_all(&call.body).await.unwrap();
    let stopped = tokio::spawn(server.stop());
    let mut rest = Vec::new();
    let _ = read.read_to_end(&mut rest).await;
    let answer = String::from_utf8_lossy(&rest);
    assert!(answer.contains("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    tokio::time::timeout(DEADLINE, stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_own_devbox_only() {
    let server = TestServer::start().await;
    let (id, config) = enrolled(&server).await;
    let applicant = Applicant::new(&id);
    let renewal = post(RENEW_PATH, &json!({"csr": applicant.request()}).to_string());
    let answer = server.devbox_call(config.clone(), renewal).await.unwrap().expect(200);
    let renewed = server.identified(issued(&applicant, &answer));
    let bundle = bundle_request(&BundleKey::generate(), None, 0);
    server.devbox_call(renewed, bundle).await.unwrap().expect(200);

    let (other, _) = register(&server).await;
    let renewal = post(RENEW_PATH, &json!({"csr": Applicant::new(&other).request()}).to_string());
    server.devbox_call(config, renewal).await.unwrap().expect(403);
}

#[tokio::test]
async fn a_join_token_works_once_and_for_its_devbox_only() {
    let server = TestServer::start().await;
    let (id, token) = register(&server).await;
    let (other, _) = register(&server).await;
    let call = |token: &str, devbox: &str| {
        server.devbox_call(server.anonymous(), enrolment(token, &Applicant::new(devbox).request()))
    };
    call(&token, &other).await.unwrap().expect(403);
    call(&token, &id).await.unwrap().expect(200);
    call(&token, &id).await.unwrap().expect(401);
    call("nonsense", &id).await.unwrap().expect(401);
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_but_enrolment() {
    let server = TestServer::start().await;
    let bundle = bundle_request(&BundleKey::generate(), None, 0);
    server.devbox_call(server.anonymous(), bundle).await.unwrap().expect(401);
    let renewal = post(RENEW_PATH, r#"{"csr": "x"}"#);
    server.devbox_call(server.anonymous(), renewal).await.unwrap().expect(401);
    server.devbox_call(server.anonymous(), post(ENROLL_PATH, r#"{"csr": "x"}"#)).await.unwrap().expect(401);
    let public = get("/v1/secrets").header("authorization", &format!("Bearer {}", server.token));
    server.devbox_call(server.anonymous(), public).await.unwrap().expect(404);
}

#[tokio::test]
async fn bodies_are_small_and_strict() {
    let server = TestServer::start().await;
    let (_, client) = enrolled(&server).await;
    for body in [
        "{}",
        "[]",
        r#"{"hpke_public_key": "x"}"#,
        r#"{"hpke_public_key": "", "extra": 1}"#,
        r#"{"hpke_public_key": "%%%", "wait_ms": 0}"#,
        r#"{"hpke_public_key": "c2hvcnQ=", "wait_ms": 0}"#,
        r#"{"hpke_public_key": "c2hvcnQ=", "wait_ms": -1}"#,
    ] {
        server.devbox_call(client.clone(), post(BUNDLE_PATH, body)).await.unwrap().expect(400);
    }
    server.devbox_call(client, post(BUNDLE_PATH, &" ".repeat(20_000))).await.unwrap().expect(413);
}

#[tokio::test]
async fn a_malformed_step_is_refused_by_its_name() {
    let server = TestServer::start().await;
    let (_, client) = enrolled(&server).await;
    let key = STANDARD.encode(BundleKey::generate().public_key());
    let boot = "b".repeat(BOOT_LEN);
    let step = "5".repeat(STEP_LEN);
    for (continuity, named) in [
        (json!({"boot": "b", "after": null, "step": step}), "continuity.boot"),
        (json!({"boot": boot, "after": "", "step": step}), "continuity.after"),
        (json!({"boot": boot, "after": null, "step": "g".repeat(STEP_LEN)}), "continuity.step"),
        (json!({"boot": boot, "after": null}), "continuity"),
        (json!({"boot": boot, "after": null, "step": step, "more": 1}), "continuity"),
        (json!(null), "continuity"),
    ] {
        let body = json!({"hpke_public_key": key, "continuity": continuity}).to_string();
        let answer = server.devbox_call(client.clone(), post(BUNDLE_PATH, &body)).await.unwrap().expect(400);
        assert!(answer.text("message").contains(named), "{}", answer.text("message"));
    }
}
