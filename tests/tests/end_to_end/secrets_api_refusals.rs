//! The Secrets API: every documented refusal, and that it says what is wrong.

use devbox_secrets_tests::client::Protocol;
use devbox_secrets_tests::world::World;
use hyper::Method;
use serde_json::{Value, json};

/// Each operation on one secret, which is not there.
pub(crate) fn operations_on_one(id: &str) -> Vec<(Method, String, Option<Value>)> {
    let value = Some(json!({ "value": "other" }));
    vec![
        (Method::GET, "/v1/secrets/SECRET".to_owned(), None),
        (Method::POST, "/v1/secrets/SECRET".to_owned(), value.clone()),
        (Method::POST, "/v1/secrets/SECRET/delete".to_owned(), None),
        (Method::GET, format!("/v1/secrets/id/{id}"), None),
        (Method::POST, format!("/v1/secrets/id/{id}/update"), value),
        (Method::POST, format!("/v1/secrets/id/{id}/delete"), None),
    ]
}

#[tokio::test]
async fn a_token_is_refused_once_revoked_and_when_mistyped() {
    let world = World::start().await;
    let account = world.server.ready.account.clone();
    let made = world.server.operator_json(&["token", "create", "--account", &account]).await;
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let api = world.api().with_token(token);
    assert_eq!(api.get("/v1/secrets").await.status, 200);
    let mistyped = token[..token.len() - 1].to_owned() + if token.ends_with('0') { "1" } else { "0" };
    api.with_token(&mistyped).get("/v1/secrets").await.refusal(401);
    world.server.operator(&["token", "revoke", "--account", &account, id], b"").await.success();
    api.get("/v1/secrets").await.refusal(401);
}

#[tokio::test]
async fn a_missing_secret_is_404_for_each_operation() {
    let world = World::start().await;
    for (method, path, body) in operations_on_one("sec_00000000000000000000000000000000") {
        let api = world.api();
        let answer = api.send(api.request(method.clone(), &path, body.as_ref())).await;
        assert!(!answer.refusal(404).is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_limit_that_is_no_positive_integer_is_refused() {
    let world = World::start().await;
    for limit in ["0", "-1", "twenty", "1.5", "0x10", "%00", "1&limit=2", "null"] {
        let refused = world.api().get(&format!("/v1/secrets?limit={limit}")).await.expect(400);
        assert_eq!(refused.text("code"), "invalid_limit", "{limit}");
        assert!(refused.text("message").contains("limit"), "{limit}: {refused:?}");
    }
    for limit in ["1", "5000", "5001", "2147483647", "999999999999"] {
        assert_eq!(world.api().get(&format!("/v1/secrets?limit={limit}")).await.status, 200, "{limit}");
    }
}

#[tokio::test]
async fn bad_names_and_values_are_refused() {
    let world = World::start().await;
    let api = world.api();
    let long = "N".repeat(256);
    for name in ["", "9A", "A-B", "A B", "A=B", "Ä", "A\0", "A\n", "A.B", "../A", &long] {
        api.post("/v1/secrets", &json!({ "name": name, "value": "v" })).await.refusal(400);
    }
    let message = api.post("/v1/secrets", &json!({ "name": "NUL", "value": "a\0b" })).await.refusal(400);
    assert!(message.contains("NUL"), "{message}");
    assert_eq!(api.get("/v1/secrets").await.expect(200).json()["total_count"], 0);
}

#[tokio::test]
async fn a_taken_name_is_refused_and_free_again_after_deletion() {
    let world = World::start().await;
    let api = world.api();
    let first = api.create("TAKEN", "1").await;
    let message = api.post("/v1/secrets", &json!({ "name": "TAKEN", "value": "2" })).await.refusal(400);
    assert!(message.contains("TAKEN"), "{message}");
    assert_eq!(api.get("/v1/secrets/TAKEN").await.expect(200).json(), first);
    api.create("taken", "names are case-sensitive").await;
    api.delete("TAKEN").await;
    assert_ne!(api.create("TAKEN", "3").await["id"], first["id"]);
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_413() {
    let world = World::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let api = world.api().over(protocol);
        // Again and again: a refusal that races with the end of the body arrives only sometimes.
        for _ in 0..20 {
            let answer = api.post("/v1/secrets", &json!({ "name": "A", "value": "v".repeat(1 << 20) })).await;
            assert!(!answer.refusal(413).is_empty(), "{protocol:?}");
        }
        let too_long_for_a_variable = json!({ "name": "A", "value": "v".repeat((1 << 20) - 100) });
        api.post("/v1/secrets", &too_long_for_a_variable).await.refusal(400);
    }
}
