//! Malformed requests are refused in the format of every other error.

use devbox_secrets_tests::client;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::TestServer;

/// Sends `request` as it is and reads to the end of the connection.
async fn exchange(server: &TestServer, request: &[u8]) -> String {
    let stream = TcpStream::connect(server.bound.api).await.unwrap();
    String::from_utf8(client::exchange(stream, request).await).unwrap()
}

/// Fails unless the last answer has this status and a body of the error format.
fn expect(answer: &str, status: u16, code: &str) {
    let last = answer
        .rfind(" 400 ")
        .or(answer.rfind(" 431 "))
        .map_or("", |space| &answer[space - "HTTP/1.1".len()..]);
    let (head, body) = last.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{answer}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(body["code"], code, "{answer}");
    assert!(body["message"].is_string() && body.as_object().unwrap().len() == 2, "{answer}");
}

#[tokio::test]
async fn requests_that_do_not_parse_are_answered_in_the_error_format() {
    let server = TestServer::start().await;
    let long = |len| "x".repeat(len);
    for (request, status, code) in [
        ("GET /healthz\r\n\r\n".to_owned(), 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nhost localhost\r\n\r\n".to_owned(), 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nb\u{0}: c\r\n\r\n".to_owned(), 400, "malformed_request"),
        (
            "POST /v1/secrets HTTP/1.1\r\nhost: a\r\ncontent-length: 1x\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", long(200_000)),
            431,
            "header_too_large",
        ),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", long(65_534)), 431, "header_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101)), 431, "header_too_large"),
    ] {
        let answer = exchange(&server, request.as_bytes()).await;
        expect(&answer, status, code);
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_malformed_request_behind_a_good_one_leaves_the_good_ones_answer_whole() {
    let server = TestServer::start().await;
    let answer = exchange(&server, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nnonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#"{"status":"ok"}"#), "{answer}");
    expect(&answer, 400, "malformed_request");
}

#[tokio::test]
async fn malformed_requests_are_counted() {
    let server = TestServer::start().await;
    exchange(&server, b"nonsense\r\n\r\n").await;
    let text = server.registry.metrics().text().unwrap();
    let line = "devbox_secrets_server_refusals_total{listener=\"api\",reason=\"malformed_request\"} 1\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let server = TestServer::start().await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a/b\r\n", 400),
        ("GET /healthz HTTP/1.0\r\nhost: a\r\nhost: b\r\n", 400),
        ("GET /healthz HTTP/1.0\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nhost: a:80\r\n", 200),
    ] {
        let answer = exchange(&server, format!("{head}connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{head}: {answer}");
        if status == 400 {
            expect(&answer, 400, "invalid_host");
        }
    }
}
