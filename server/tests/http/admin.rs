//! The admin listener, as monitoring uses it.

use tokio::net::TcpStream;

use crate::support::{Answer, Protocol, TestServer, get, post, send};

async fn monitored() -> TestServer {
    TestServer::start_with(|config| config.admin = Some("127.0.0.1:0".parse().unwrap())).await
}

async fn ask(server: &TestServer, path: &str) -> Answer {
    let stream = TcpStream::connect(server.bound.admin.unwrap()).await.unwrap();
    send(Protocol::Http1, stream, get(path)).await.unwrap()
}

async fn metric(server: &TestServer, name: &str) -> Option<f64> {
    let text = ask(server, "/metrics").await.expect(200).body;
    let text = String::from_utf8(text.to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn requests_and_refusals_are_counted_by_template_and_code_and_show_nothing_that_was_sent() {
    let server = monitored().await;
    server.call(post("/v1/secrets", r#"{"name":"CANARY_NAME","value":"canary-value"}"#)).await.expect(200);
    server.call(get("/v1/secrets/CANARY_NAME")).await.expect(200);
    server.call(get("/v1/secrets/OTHER_CANARY_NAME")).await.expect(404);
    let requests = "devbox_secrets_server_requests_total{listener=\"api\",route=\"/v1/secrets/{name}\"";
    for status in [200, 404] {
        assert_eq!(metric(&server, &format!("{requests},status=\"{status}\"}}")).await, Some(1.0));
    }
    let refusal = "devbox_secrets_server_refusals_total{listener=\"api\",reason=\"not_found\"}";
    assert_eq!(metric(&server, refusal).await, Some(1.0));
    let text = ask(&server, "/metrics").await.body;
    assert!(!String::from_utf8(text.to_vec()).unwrap().to_lowercase().contains("canary"));
}

#[tokio::test]
async fn the_end_of_the_devbox_listeners_certificate_is_shown() {
    let server = monitored().await;
    let name = "devbox_secrets_server_certificate_not_after_timestamp_seconds{listener=\"devbox\"}";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(metric(&server, name).await.unwrap() > now + 86_400.0);
}

#[tokio::test]
async fn the_admin_listener_serves_health_and_readiness_and_no_more() {
    let server = monitored().await;
    assert_eq!(ask(&server, "/healthz").await.expect(200).body, "ok\n");
    assert_eq!(ask(&server, "/readyz").await.expect(200).body, "ready\n");
    ask(&server, "/v1/secrets").await.expect(404);
}

#[tokio::test]
async fn the_public_listener_has_no_metrics() {
    let server = monitored().await;
    server.call(get("/metrics")).await.expect(404);
}
