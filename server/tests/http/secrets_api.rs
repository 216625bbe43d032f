//! The Secrets API over real HTTP/1.1 and h2c: each operation, each status.

use crate::support::{Answer, Call, Protocol, TestServer, get, post};
use devbox_secrets_server::api::public::{Access, routes};
use devbox_secrets_server::config::{Limits, Rate};
use devbox_secrets_server::registry::{Actor, Scope};
use serde_json::json;

fn secret(name: &str, value: &str) -> Call {
    post("/v1/secrets", &json!({"name": name, "value": value}).to_string())
}

fn is_view(answer: &Answer, name: &str) {
    let view = answer.json();
    let mut fields: Vec<&String> = view.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["create_time_ms", "id", "name", "update_time_ms"], "never the value");
    assert_eq!(view["name"], name);
}

#[tokio::test]
async fn storing_a_guarded_name_succeeds_with_a_warning() {
    let server = TestServer::start().await;
    let update = post("/v1/secrets/TAR_OPTIONS", r#"{"value": "two"}"#);
    for call in [secret("TAR_OPTIONS", "one"), update] {
        let warning = server.call(call).await.expect(200).header("x-devbox-secrets-warning").to_owned();
        assert!(warning.contains("archiver") && warning.contains("names it exactly"), "{warning}");
    }
    let plain = server.call(secret("NPM_TOKEN", "one")).await.expect(200);
    assert!(plain.headers.get("x-devbox-secrets-warning").is_none());
}

#[tokio::test]
async fn bodies_that_are_not_what_is_asked_for_are_refused_without_an_echo() {
    let server = TestServer::start().await;
    server.call(secret("TAKEN", "v")).await.expect(200);
    let bodies = [
        (r#"{"name": "A", "value": "hunter2""#, ""),
        (r#"{"name": "A", "value": "hunter2", "x": 1}"#, "field"),
        (r#"{"name": "A", "name": "B", "value": "hunter2"}"#, "name"),
        (r#"{"name": "A", "value": "hunter2", "value": "hunter2"}"#, "value"),
        (r#"{"name": "A", "value": "hunter2"} {}"#, ""),
        (r#"{"name": "A", "value": "hunter2\ud800"}"#, ""),
        (r#"{"name": "A", "value": ["hunter2"]}"#, ""),
        (r#"{"name": "A", "value": null}"#, ""),
        (r#"{"name": "A", "hunter2": "x"}"#, ""),
        (r#"{"name": 7, "value": "hunter2"}"#, ""),
        (r#"{"name": "A"}"#, "value"),
        (r#"{"value": "hunter2"}"#, "name"),
        (r#"["A", "hunter2"]"#, ""),
        (r#""hunter2""#, ""),
        (r#"{"name": "A-B", "value": "hunter2"}"#, ""),
        (r#"{"name": "", "value": "hunter2"}"#, ""),
        (r#"{"name": "A", "value": "hunter2\u0000"}"#, ""),
        (r#"{"name": "TAKEN", "value": "hunter2"}"#, ""),
        ("null", ""),
        ("", ""),
    ];
    for (body, named) in bodies {
        let answer = server.call(post("/v1/secrets", body)).await.expect(400);
        assert!(answer.text("message").contains(named), "{body}: {answer:?}");
        assert!(!answer.body_text().contains("hunter2"), "{body}: {answer:?}");
    }
    let not_utf8 = Call { body: b"{\"name\": \"A\", \"value\": \"\xff\"}".to_vec(), ..secret("A", "v") };
    server.call(not_utf8).await.expect(400);
    server.call(post("/v1/secrets/TAKEN/delete", r#"{"a": 1}"#)).await.expect(400);
    let page = server.call(get("/v1/secrets")).await.expect(200).json();
    assert_eq!(page["total_count"], 1, "an invalid secret was stored: {page}");
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_413_and_one_that_is_not_json_is_415() {
    let server = TestServer::start().await;
    let body = secret("A", "v").body;
    let padded = |len: usize| {
        let mut body = body.clone();
        body.resize(len, b' ');
        Call { body, ..secret("A", "v") }
    };
    server.call(padded(1024 * 1024)).await.expect(200);
    server.call(padded(1024 * 1024 + 1)).await.expect(413);
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        server.call(secret("B", "v").header("content-type", media)).await.expect(415);
    }
    server.call(secret("B", "v").header("content-encoding", "gzip")).await.expect(415);
    let untyped = Call { headers: Vec::new(), ..secret("B", "v") };
    server.call(untyped).await.expect(415);
    let typed = secret("B", "v").header("content-type", "Application/JSON; charset=utf-8");
    server.call(typed).await.expect(200);
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let server = TestServer::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/secret",
        "/v1/secrets/",
        "/v2/secrets",
        "/v1/secrets/A/nope",
        "/v1/secrets/A/B/C",
        "/v1/devbox/bundle",
    ] {
        assert_eq!(server.call(get(path)).await.expect(404).text("code"), "unknown_route", "{path}");
    }
    for (method, path, expected) in [
        ("PUT", "/v1/secrets", &["GET", "HEAD", "POST"][..]),
        ("DELETE", "/v1/secrets", &["GET", "HEAD", "POST"]),
        ("PUT", "/v1/secrets/A", &["GET", "HEAD", "POST"]),
        ("DELETE", "/v1/secrets/A", &["GET", "HEAD", "POST"]),
        ("GET", "/v1/secrets/A/delete", &["POST"]),
        ("DELETE", "/v1/secrets/id/sec_0", &["GET", "HEAD"]),
        ("GET", "/v1/secrets/id/sec_0/update", &["POST"]),
    ] {
        let answer = server.call(get(path).method(method)).await.expect(405);
        let mut allowed: Vec<&str> = answer.header("allow").split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed, expected, "{method} {path}");
    }
    server.call(get("/v1/secrets/%FF")).await.expect(404);
}

#[tokio::test]
async fn every_route_but_the_open_ones_refuses_a_caller_without_a_valid_token() {
    let server = TestServer::start().await;
    let devbox = server.call(post("/v1/devboxes", "{}")).await.expect(200).text("id");
    let tokens = ["Bearer", "Bearer x", "Bearer dbs_wrong", "Basic YTpi", "bearer\t\u{e9}"].map(Some);
    for route in routes() {
        let path = route.path.replace("{name}", "A").replace("{id}", &devbox);
        for token in tokens.into_iter().chain([None]) {
            let call =
                Call { method: if route.method == "GET" { "GET" } else { "POST" }, ..post(&path, "{}") };
            let call = token.into_iter().fold(call, |call, token| call.header("authorization", token));
            let answer = server.call_by(Protocol::Http1, call).await;
            match route.access {
                Access::Open => assert_eq!(answer.status, 200, "{path}"),
                Access::Bearer(_) => {
                    let answer = answer.expect(401);
                    assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
                }
            }
        }
    }
    let devbox = server.call(get(&format!("/v1/devboxes/{devbox}"))).await.expect(200);
    assert_eq!(devbox.text("status"), "running", "a refused operation has no effect");
    let open: Vec<&str> = routes().iter().filter(|r| r.access == Access::Open).map(|r| r.path).collect();
    assert_eq!(open, ["/openapi.json", "/healthz"], "only these are open on purpose");
}

#[tokio::test]
async fn authorization_is_decided_before_the_body_is_looked_at() {
    let server = TestServer::start().await;
    for body in ["not json", "{}", &"x".repeat(2 * 1024 * 1024)] {
        server.call_by(Protocol::Http1, post("/v1/secrets", body)).await.expect(401);
    }
}

#[tokio::test]
async fn an_account_without_the_devbox_capability_is_refused_everywhere() {
    let server = TestServer::start().await;
    server
        .registry
        .set_devbox_capability(&Actor::Operator("test".to_owned()), &server.account, false)
        .await
        .unwrap();
    let calls = [
        secret("A", "v"),
        get("/v1/secrets"),
        get("/v1/secrets/A"),
        post("/v1/secrets/A", r#"{"value": "w"}"#),
        post("/v1/secrets/A/delete", ""),
        get("/v1/secrets/id/sec_1"),
        post("/v1/secrets/id/sec_1/update", r#"{"value": "w"}"#),
        post("/v1/secrets/id/sec_1/delete", ""),
        post("/v1/devboxes", "{}"),
        get("/v1/devboxes"),
        get("/v1/devboxes/dbx_1"),
        post("/v1/devboxes/dbx_1/shutdown", ""),
        post("/v1/devboxes/dbx_1/join_token", ""),
    ];
    for call in calls {
        server.call(call).await.expect(403);
    }
}

#[tokio::test]
async fn h2c_with_prior_knowledge_is_served_like_http_1() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", server.token);
    let call = |call: Call| server.call_by(Protocol::Http2, call.header("authorization", &bearer));
    is_view(&call(secret("A", &"v".repeat(100_000))).await.expect(200), "A");
    is_view(&call(get("/v1/secrets/A")).await.expect(200), "A");
    call(get("/v1/secrets/B")).await.expect(404);
    server.call_by(Protocol::Http2, get("/v1/secrets")).await.expect(401);
}

/// Each of them asks its connection to close, and must not cut off another.
#[tokio::test]
async fn fifty_requests_with_values_at_once_in_one_h2c_connection_are_all_answered() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", server.token);
    let calls =
        (0..50).map(|index| secret(&format!("C{index}"), "v").header("authorization", &bearer)).collect();
    let answers = server.together(calls).await;
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_is_not_stored() {
    let server = TestServer::start().await;
    for call in [get("/v1/secrets"), get("/nope"), get("/v1/secrets").method("PUT"), get("/openapi.json")] {
        let answer = server.call(call.clone().header("x-request-id", "my-id-1")).await;
        assert_eq!(answer.header("x-request-id"), "my-id-1");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(server.call(call).await.header("x-request-id").starts_with("req_"));
    }
}

#[tokio::test]
async fn every_secret_of_a_long_list_comes_once_page_by_page() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        let name = format!("KEY_{number}");
        let body = format!(r#"{{"name": "{name}", "value": "v"}}"#);
        server.call(post("/v1/secrets", &body)).await.expect(200);
        expected.push(name);
    }
    for cursor in ["id", "name"] {
        let mut seen = Vec::new();
        let mut query = "limit=3".to_owned();
        loop {
            let page = server.call(get(&format!("/v1/secrets?{query}"))).await.expect(200).json();
            assert_eq!(page["total_count"], 7);
            let secrets = page["secrets"].as_array().unwrap().clone();
            seen.extend(secrets.iter().map(|secret| secret["name"].as_str().unwrap().to_owned()));
            if page["has_more"] == false {
                break;
            }
            query = format!("limit=3&starting_after={}", secrets.last().unwrap()[cursor].as_str().unwrap());
        }
        assert_eq!(seen, expected, "{cursor}");
    }
    server.call(get("/v1/secrets?starting_after=a-b")).await.expect(404);
    for unsupported in ["status=running", "order=asc", "page=2"] {
        let refused = server.call(get(&format!("/v1/secrets?{unsupported}"))).await.expect(400);
        assert_eq!(refused.text("code"), "unsupported_query");
    }
}

#[tokio::test]
async fn each_route_needs_its_scope_and_a_refusal_names_it() {
    let server = TestServer::start().await;
    let scoped = async |scopes: &[Scope]| {
        let scopes = scopes.iter().copied().collect();
        let actor = Actor::Operator("root".to_owned());
        let (_, token) =
            server.registry.create_token(&actor, &server.account, "t", None, scopes).await.unwrap();
        format!("Bearer {}", token.expose_token())
    };
    for route in routes() {
        let Access::Bearer(needed) = route.access else { continue };
        let path = route.path.replace("{name}", "NAME").replace("{id}", "none");
        let method = if route.method == "GET" { "GET" } else { "POST" };
        let call = |bearer: &str| get(&path).method(method).header("authorization", bearer);
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != needed).collect();
        let refused = server.call_by(Protocol::Http1, call(&scoped(&others).await)).await.expect(403);
        assert_eq!(refused.text("code"), "missing_scope", "{path}");
        assert!(refused.text("message").contains(needed.as_str()), "{path}: {}", refused.text("message"));
        let allowed = server.call_by(Protocol::Http1, call(&scoped(&[needed]).await)).await;
        assert_ne!(allowed.status, 403, "{path}: {allowed:?}");
    }
}

#[tokio::test]
async fn a_rate_and_a_budget_are_refused_by_name_counted_and_say_when_to_try_again() {
    let server = TestServer::start().await;
    let interval = std::time::Duration::from_secs(1800);
    let limits = Limits { secrets: 1, requests: Rate { interval, burst: 3 }, ..Limits::default() };
    server.registry.set_limits(limits);
    let create = |name: &str| post("/v1/secrets", &format!(r#"{{"name": "{name}", "value": "v"}}"#));
    server.call(create("A")).await.expect(200);
    let refused = server.call(create("B")).await.expect(400);
    assert_eq!(refused.text("code"), "budget_secrets");
    assert!(refused.text("message").contains("secrets_per_account"), "{}", refused.text("message"));
    server.call(get("/v1/secrets/A")).await.expect(200);
    let refused = server.call(get("/v1/secrets/A")).await.expect(429);
    assert_eq!(refused.text("code"), "budget_requests");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
    let metrics = server.registry.metrics().text().unwrap();
    for budget in ["secrets", "requests"] {
        let line = format!("devbox_secrets_server_budget_refusals_total{{budget=\"{budget}\"}} 1\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}
