//! No error repeats what a caller sent: a value in the wrong place must not appear in a client's
//! log.

use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::{Call, TestServer, get, post};

/// Requests with `text` in each place for a string, all of them refused. `is_name`: the text could
/// be a secret's name, so that the places for new names are left out: a valid name may be repeated
/// there.
fn requests(text: &str, is_name: bool) -> Vec<Call> {
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut calls = vec![
        get(&format!("/v1/secrets/{escaped}")),
        post(&format!("/v1/secrets/{escaped}"), &json!({"value": "v"}).to_string()),
        post(&format!("/v1/secrets/{escaped}/delete"), "{}"),
        get(&format!("/v1/secrets/id/{escaped}")),
        post(&format!("/v1/secrets/id/{escaped}/update"), &json!({"value": "v"}).to_string()),
        post(&format!("/v1/secrets/id/{escaped}/delete"), ""),
        get(&format!("/v1/devboxes/{escaped}")),
        post(&format!("/v1/devboxes/{escaped}/shutdown"), ""),
        post(&format!("/v1/devboxes/{escaped}/join_token"), ""),
        get(&format!("/{escaped}")),
        get(&format!("/v1/secrets?limit={escaped}")),
        get(&format!("/v1/devboxes?starting_after={escaped}")),
        get("/v1/secrets").header("authorization", &format!("Bearer {escaped}")),
        get("/v1/secrets").header("authorization", &escaped),
        post("/v1/secrets", &json!({"name": "N", "value": "v"}).to_string())
            .header("content-type", &format!("text/{escaped}")),
        post("/v1/secrets", text),
    ];
    let mut bodies = vec![
        json!({"name": "N", "value": format!("{text}\0")}),
        json!({"name": format!("{text}-"), "value": "v"}),
        json!({"name": "N", "value": "v", text: "x"}),
        json!({"name": {"x": text}, "value": "v"}),
        json!({"name": "N", "value": [text]}),
        json!(text),
        json!([text]),
    ];
    if !is_name {
        bodies.push(json!({"name": text, "value": "v"}));
    }
    calls.extend(bodies.iter().map(|body| post("/v1/secrets", &body.to_string())));
    let mut bodies = vec![
        json!({"secrets": {"ENV": text}}),
        json!({"secrets": {format!("{text}-"): "N"}}),
        json!({"secrets": text}),
        json!({"secrets": {"ENV": [text]}}),
        json!({"gateways": {"GW": {"gateway": text, "secret": text}}}),
        json!({"gateways": {text: {"gateway": "g", "secret": "s"}}}),
        json!({"gateways": {"GW": {"gateway": "g", "secret": "s", text: "x"}}}),
        json!({"metadata": {"k": format!("{text}{}", "v".repeat(20_000))}}),
        json!({"metadata": {format!("{text}{}", "k".repeat(20_000)): ""}}),
        json!({"metadata": {"k": {text: 1}}}),
        json!({"name": format!("{text}\u{1b}")}),
        json!({"name": [text]}),
        json!({text: "x"}),
    ];
    if !is_name {
        bodies.push(json!({"secrets": {text: "NO_SUCH"}}));
    }
    calls.extend(bodies.iter().map(|body| post("/v1/devboxes", &body.to_string())));
    calls
}

fn check(runtime: &tokio::runtime::Runtime, server: &TestServer, text: &str, is_name: bool) {
    for call in requests(text, is_name) {
        let place = format!("{} {} {}", call.method, call.path, String::from_utf8_lossy(&call.body));
        let anonymous = call.headers.iter().any(|(name, _)| *name == "authorization");
        let answer = runtime.block_on(async {
            if anonymous {
                server.call_by(crate::support::Protocol::Http1, call).await
            } else {
                server.call(call).await
            }
        });
        assert!(answer.status.is_client_error(), "{place}: {answer:?}");
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!body.contains(text), "{place}: {body}");
        assert!(
            answer.headers.values().all(|value| !value.to_str().unwrap_or_default().contains(text)),
            "{place}"
        );
    }
}

#[test]
fn no_error_of_the_public_api_repeats_what_was_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(TestServer::start());
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    runner
        .run(&("[g-zG-Z]{3}-[a-zA-Z0-9/+=]{16,40}", "[g-zG-Z][a-zA-Z0-9_]{15,60}"), |(value, name)| {
            check(&runtime, &server, &value, false);
            check(&runtime, &server, &name, true);
            Ok(())
        })
        .unwrap();
}
