//! Retried writes, as clients send them.

use serde_json::json;

use crate::support::{Call, TestServer, on_disk, post};

fn create(name: &str, value: &str, id: &str) -> Call {
    post("/v1/secrets", &json!({ "name": name, "value": value }).to_string()).header("x-request-id", id)
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_its_id_back() {
    let server = TestServer::start().await;
    let first = server.call(create("KEY", "one", "retry-1")).await.expect(200);
    let second = server.call(create("KEY", "one", "retry-1")).await.expect(200);
    assert_eq!(first.body, second.body);
    assert_eq!(second.header("x-request-id"), "retry-1");
    let without = server.call(post("/v1/secrets", r#"{"name":"KEY","value":"one"}"#)).await;
    assert_eq!(without.expect(400).text("code"), "name_taken");
}

#[tokio::test]
async fn the_same_id_with_another_value_path_or_body_is_a_400() {
    let server = TestServer::start().await;
    server.call(create("KEY", "one", "id")).await.expect(200);
    for other in [
        create("KEY", "two", "id"),
        post("/v1/secrets/KEY", r#"{"value":"one"}"#).header("x-request-id", "id"),
        post("/v1/secrets/KEY/delete", "").header("x-request-id", "id"),
        post("/v1/devboxes", "").header("x-request-id", "id"),
    ] {
        assert_eq!(server.call(other).await.expect(400).text("code"), "request_id_reused");
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_kept_is_refused_on_a_write() {
    let server = TestServer::start().await;
    for id in ["", "a b", &"x".repeat(129)] {
        let refused = server.call(create("KEY", "one", id)).await.expect(400);
        assert_eq!(refused.text("code"), "invalid_request_id");
    }
}

#[tokio::test]
async fn neither_value_nor_join_token_is_kept_for_a_retry() {
    let server = TestServer::start().await;
    let value = "canary-3f1c9a77";
    let id = "kept-or-not";
    server.call(create("KEY", value, id)).await.expect(200);
    let devbox = server.call(post("/v1/devboxes", "").header("x-request-id", "register")).await.expect(200);
    let token = devbox.text("join_token");
    let secret = token.split('.').nth(1).unwrap();
    assert!(on_disk(server.state.path(), id.as_bytes()), "the receipt is there");
    assert!(!on_disk(server.state.path(), value.as_bytes()));
    assert!(!on_disk(server.state.path(), secret.as_bytes()));
}
