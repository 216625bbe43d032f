//! The Secrets API: every documented refusal, and that it says what is wrong.

use devbox_secrets_tests::client::{Answer, Api, Outgoing, Protocol};
use devbox_secrets_tests::world::World;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

/// Each operation, on a secret that is not there.
pub(crate) fn operations(id: &str) -> Vec<(Method, String, Option<Value>)> {
    let value = Some(json!({ "value": "other" }));
    vec![
        (Method::POST, "/v1/secrets".to_owned(), Some(json!({ "name": "OPERATION", "value": "v" }))),
        (Method::GET, "/v1/secrets".to_owned(), None),
        (Method::GET, "/v1/secrets/SECRET".to_owned(), None),
        (Method::POST, "/v1/secrets/SECRET".to_owned(), value.clone()),
        (Method::POST, "/v1/secrets/SECRET/delete".to_owned(), None),
        (Method::GET, format!("/v1/secrets/id/{id}"), None),
        (Method::POST, format!("/v1/secrets/id/{id}/update"), value),
        (Method::POST, format!("/v1/secrets/id/{id}/delete"), None),
    ]
}

/// Those of them that name one secret.
pub(crate) fn operations_on_one(id: &str) -> Vec<(Method, String, Option<Value>)> {
    operations(id).into_iter().filter(|(_, path, _)| path != "/v1/secrets").collect()
}

/// A request with a body that is no JSON value, or has another type.
fn raw(api: &Api, body: &'static [u8], content_type: Option<&'static str>) -> Outgoing {
    let mut request = api.request(Method::POST, "/v1/secrets", None).map(|_| Full::from(body));
    if let Some(content_type) = content_type {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    request
}

async fn send_json(api: &Api, body: &'static str) -> Answer {
    api.send(raw(api, body.as_bytes(), Some("application/json"))).await
}

#[tokio::test]
async fn every_operation_needs_a_token() {
    let world = World::start().await;
    for (method, path, body) in operations("sec_0") {
        for authorization in
            [None, Some("Bearer"), Some("Bearer x"), Some("Basic eDp5"), Some("bearer\t\u{e9}")]
        {
            let api = world.api().without_token();
            let mut request = api.request(method.clone(), &path, body.as_ref());
            if let Some(value) = authorization {
                request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            let answer = api.send(request).await;
            let answer = answer.expect(401);
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Bearer"), "{method} {path} {authorization:?}: {challenge:?}");
        }
    }
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
    for path in ["/", "/v1", "/v1/secret", "/v1/secrets/", "/v2/secrets", "/v1/secrets/A/B/C"] {
        world.api().get(path).await.refusal(404);
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_which_are_right() {
    let world = World::start().await;
    let routes = [
        (Method::DELETE, "/v1/secrets", vec!["GET", "HEAD", "POST"]),
        (Method::PUT, "/v1/secrets/SECRET", vec!["GET", "HEAD", "POST"]),
        (Method::GET, "/v1/secrets/SECRET/delete", vec!["POST"]),
        (Method::DELETE, "/v1/secrets/id/sec_0", vec!["GET", "HEAD"]),
        (Method::GET, "/v1/secrets/id/sec_0/update", vec!["POST"]),
    ];
    for (method, path, wanted) in routes {
        let api = world.api();
        let answer = api.send(api.request(method.clone(), path, None)).await;
        let answer = answer.expect(405);
        let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        allowed.retain(|method| *method != "HEAD");
        let wanted: Vec<&str> = wanted.into_iter().filter(|method| *method != "HEAD").collect();
        assert_eq!(allowed, wanted, "{method} {path}");
    }
}

#[tokio::test]
async fn a_limit_that_is_no_positive_integer_is_refused() {
    let world = World::start().await;
    for limit in ["0", "-1", "twenty", "1.5", "0x10", "%00", "1&limit=2", "null"] {
        let message = world.api().get(&format!("/v1/secrets?limit={limit}")).await.refusal(400);
        assert!(message.contains("limit"), "{limit}: {message}");
    }
    for limit in ["1", "5000", "5001", "2147483647"] {
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
async fn malformed_bodies_are_refused_with_the_field_named() {
    let world = World::start().await;
    let api = world.api();
    for (body, named) in [
        (r#"{"name": "A", "value": "v", "extra": 1}"#, "field"),
        (r#"{"name": "A"}"#, "value"),
        (r#"{"value": "v"}"#, "name"),
        (r#"{"name": "A", "name": "B", "value": "v"}"#, "name"),
        (r#"{"name": "A", "value": "v", "value": "w"}"#, "value"),
        (r#"{"name": "A", "value": null}"#, ""),
        (r#"{"name": 7, "value": "v"}"#, ""),
        (r#"{"name": "A", "value": "v"} {}"#, ""),
        (r#"{"name": "A", "value": "\ud800"}"#, ""),
        (r#"{"name": "A", "value": "v""#, ""),
        (r#"["A", "v"]"#, ""),
        ("null", ""),
        ("", ""),
    ] {
        let message = send_json(&api, body).await.refusal(400);
        assert!(message.contains(named), "{body}: {message}");
    }
    let not_utf8 = raw(&api, b"{\"name\": \"A\", \"value\": \"\xff\"}", Some("application/json"));
    api.send(not_utf8).await.refusal(400);
    assert_eq!(api.get("/v1/secrets").await.expect(200).json()["total_count"], 0);
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_415() {
    let world = World::start().await;
    let api = world.api();
    const BODY: &[u8] = br#"{"name": "A", "value": "v"}"#;
    for content_type in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
    {
        assert!(!api.send(raw(&api, BODY, content_type)).await.refusal(415).is_empty(), "{content_type:?}");
    }
    let declared = raw(&api, BODY, Some("Application/JSON; charset=utf-8"));
    assert_eq!(api.send(declared).await.status, 200);
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

#[tokio::test]
async fn the_token_is_looked_at_before_the_body() {
    let world = World::start().await;
    let api = world.api().without_token();
    let answer = send_json(&api, "not JSON").await;
    answer.refusal(401);
}
