//! The registry of devboxes over HTTP.

use crate::support::{TestServer, get, post};
use serde_json::{Value, json};

#[tokio::test]
async fn a_devbox_lives_from_registration_to_shutdown() {
    let server = TestServer::start().await;
    let secret = post("/v1/secrets", r#"{"name": "DATABASE_PASSWORD", "value": "v"}"#);
    let secret_id = server.call(secret).await.expect(200).text("id");
    let body = json!({"name": "box", "secrets": {"DB_PASS": "DATABASE_PASSWORD"}, "metadata": {"a": "b"}});
    let created = server.call(post("/v1/devboxes", &body.to_string())).await.expect(200);
    let id = created.text("id");
    assert!(created.text("join_token").starts_with(&format!("{id}.")));

    let view = server.call(get(&format!("/v1/devboxes/{id}"))).await.expect(200).json();
    assert_eq!(view["secrets"], json!({"DB_PASS": secret_id}));
    assert_eq!((&view["name"], &view["status"]), (&json!("box"), &json!("running")));
    assert_eq!(view["metadata"], json!({"a": "b"}));
    assert!(view["create_time_ms"].as_i64().is_some_and(|time| time > 1_700_000_000_000));
    assert_eq!(view["join_token"], Value::Null, "a join token is shown once");
    for (field, empty) in
        [("capabilities", json!([])), ("launch_parameters", json!({})), ("end_time_ms", Value::Null)]
    {
        assert_eq!(view[field], empty, "as official clients expect");
    }

    let shutdown = post(&format!("/v1/devboxes/{id}/shutdown"), "{}");
    let shut = server.call(shutdown.clone()).await.expect(200).json();
    assert_eq!(shut["status"], "shutdown");
    assert!(shut["end_time_ms"].as_i64() >= shut["create_time_ms"].as_i64());
    let statuses: Vec<&Value> =
        shut["state_transitions"].as_array().unwrap().iter().map(|t| &t["status"]).collect();
    assert_eq!(statuses, ["running", "shutdown"]);
    assert_eq!(server.call(shutdown).await.expect(200).json(), shut, "twice is as once");
    assert_eq!(server.call(get(&format!("/v1/devboxes/{id}"))).await.expect(200).json(), shut);
}

#[tokio::test]
async fn a_devbox_registers_without_any_field() {
    let server = TestServer::start().await;
    for body in ["", "{}", r#"{"name": null, "secrets": null, "gateways": null, "metadata": null}"#] {
        let view = server.call(post("/v1/devboxes", body)).await.expect(200).json();
        assert_eq!(view["secrets"], Value::Null, "every secret of the account: {body}");
    }
}

#[tokio::test]
async fn fields_that_describe_a_machine_are_refused_by_name() {
    let server = TestServer::start().await;
    for field in ["blueprint_id", "environment_variables", "launch_parameters", "mounts", "snapshot_id"] {
        let body = json!({field: {}}).to_string();
        let message = server.call(post("/v1/devboxes", &body)).await.expect(400).text("message");
        assert!(message.contains(field) && message.contains("starts no machine"), "{message}");
    }
    server.call(post("/v1/secrets", r#"{"name": "THERE", "value": "v"}"#)).await.expect(200);
    for (body, named) in [
        (r#"{"nope": 1}"#, ""),
        (r#"{"secrets": {"A": 1}}"#, ""),
        (r#"{"secrets": ["THERE"]}"#, ""),
        (r#"{"secrets": {"DB_PASS": "NO_SUCH"}}"#, "DB_PASS"),
        (r#"{"secrets": {"bad name": "THERE"}}"#, "name"),
        (r#"{"secrets": {"A": "X", "A": "Y"}}"#, ""),
        (r#"{"gateways": {"A": {"gateway": "g"}}}"#, ""),
    ] {
        let message = server.call(post("/v1/devboxes", body)).await.refusal(400);
        assert!(message.contains(named), "{body}: {message}");
    }
    assert_eq!(server.call(get("/v1/devboxes")).await.expect(200).json()["total_count"], 0);
}

#[tokio::test]
async fn unknown_devboxes_are_404() {
    let server = TestServer::start().await;
    server.call(get("/v1/devboxes/dbx_1")).await.expect(404);
    server.call(post("/v1/devboxes/dbx_1/shutdown", "")).await.expect(404);
    server.call(post("/v1/devboxes/dbx_1/join_token", "")).await.expect(404);
}

#[tokio::test]
async fn a_running_devbox_gets_another_join_token_each_time() {
    let server = TestServer::start().await;
    let created = server.call(post("/v1/devboxes", "{}")).await.expect(200);
    let id = created.text("id");
    let path = format!("/v1/devboxes/{id}/join_token");
    let answer = server.call(post(&path, "{}")).await.expect(200);
    let token = answer.text("join_token");
    assert_eq!(answer.json(), json!({"join_token": token}));
    assert!(token.starts_with(&format!("{id}.")));
    assert_ne!(token, created.text("join_token"));
    assert_ne!(token, server.call(post(&path, "")).await.expect(200).text("join_token"));
    server.call(post(&path, r#"{"ttl": 1}"#)).await.expect(400);
    server.call(post(&format!("/v1/devboxes/{id}/shutdown"), "")).await.expect(200);
    assert_eq!(server.call(post(&path, "")).await.expect(403).text("code"), "devbox_shutdown");
}

#[tokio::test]
async fn a_list_of_devboxes_has_one_status_and_is_counted_if_asked() {
    let server = TestServer::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.call(post("/v1/devboxes", "{}")).await.expect(200).text("id"));
    }
    server.call(post(&format!("/v1/devboxes/{}/shutdown", ids[1]), "")).await.expect(200);
    for (query, ids, total) in [
        ("status=running", vec![&ids[0], &ids[2]], json!(2)),
        ("status=shutdown", vec![&ids[1]], json!(1)),
        ("status=suspended", vec![], json!(0)),
        ("status=running&include_total_count=false", vec![&ids[0], &ids[2]], Value::Null),
        ("include_total_count=true", vec![&ids[0], &ids[1], &ids[2]], json!(3)),
    ] {
        let page = server.call(get(&format!("/v1/devboxes?{query}"))).await.expect(200).json();
        let mut found: Vec<&str> = page["devboxes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|devbox| devbox["id"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        let mut ids: Vec<&str> = ids.into_iter().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!((found, &page["total_count"]), (ids, &total), "{query}");
    }
    server.call(get("/v1/devboxes?status=nope")).await.expect(400);
}

#[tokio::test]
async fn a_binding_under_a_guarded_name_is_stored_with_a_warning() {
    let server = TestServer::start().await;
    server.call(post("/v1/secrets", r#"{"name":"KEY","value":"v"}"#)).await.expect(200);
    let register = async |env: &str| {
        let body = json!({ "name": "box", "secrets": { env: "KEY" } }).to_string();
        server.call(post("/v1/devboxes", &body)).await.expect(200)
    };
    let warned = register("LD_PRELOAD").await;
    assert!(warned.header("x-devbox-secrets-warning").starts_with("guarded name: "));
    assert!(register("API_KEY").await.headers.get("x-devbox-secrets-warning").is_none());
}
