//! One address, certificate or account that uses up its budget is refused by name, and others
//! continue.

use std::cell::RefCell;
use std::net::SocketAddr;

use devbox_secrets_server::config::{Config, Exempt, ListenerLimits, Rate};
use devbox_secrets_tests::client;
use devbox_secrets_tests::devbox::Applicant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::devbox_listener::{enrolled, enrolment};
use crate::support::{TestServer, get};

/// Changes the public listener's limits; loopback addresses count like any other.
fn limited(change: impl FnOnce(&mut ListenerLimits)) -> impl FnOnce(&mut Config) {
    move |config| {
        config.api.limits.exempt = Exempt { loopback: false, addresses: Vec::new() };
        change(&mut config.api.limits);
    }
}

/// Connects from another address than 127.0.0.1.
async fn connect_from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn exchange(stream: TcpStream, request: &str) -> String {
    String::from_utf8(client::exchange(stream, request.as_bytes()).await).unwrap()
}

fn assert_counted(server: &TestServer, line: &str) {
    let text = server.registry.metrics().text().unwrap();
    assert!(text.lines().any(|found| found == format!("devbox_secrets_server_{line}")), "{line}: {text}");
}

#[tokio::test]
async fn an_address_without_connections_left_is_refused_and_another_one_is_served() {
    let server = TestServer::start_with(limited(|limits| limits.connections_per_address = 2)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect_from_elsewhere(server.bound.api).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
        held.push(stream);
    }
    let answer = exchange(connect_from_elsewhere(server.bound.api).await, "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(answer.contains("\"code\":\"too_many_connections\""), "{answer}");
    server.call(get("/v1/secrets")).await.expect(200);
    assert_counted(
        &server,
        "connections_refused_total{listener=\"api\",reason=\"max_connections_per_address\"} 1",
    );
}

/// An authorised request as it goes over the wire, with the beginning of a body that is announced
/// as longer.
fn unfinished_post(token: &str, announced: usize, sent: usize) -> String {
    format!(
        "POST /v1/secrets HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {announced}\r\n\r\n{}",
        " ".repeat(sent)
    )
}

fn get_with(token: &str) -> String {
    format!(
        "GET /v1/secrets HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    )
}

/// Connections that each began a request and never end it. One that comes while a call is in work
/// may itself be refused, so every call is preceded by another one.
#[derive(Default)]
struct Held(RefCell<Vec<TcpStream>>);

impl Held {
    async fn add(&self, server: &TestServer, announced: usize, sent: usize) {
        let mut stream = TcpStream::connect(server.bound.api).await.unwrap();
        stream.write_all(unfinished_post(&server.token, announced, sent).as_bytes()).await.unwrap();
        self.0.borrow_mut().push(stream);
    }
}

/// Calls until the answer contains `part`, or a generous deadline has passed.
async fn until(part: &str, call: impl AsyncFn() -> String) -> String {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let answer = call().await;
        if answer.contains(part) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {part:?}: {answer}");
    }
}

#[tokio::test]
async fn a_guesser_is_stopped_and_valid_tokens_still_work_from_every_address() {
    let server = TestServer::start_with(limited(|limits| limits.failures_per_second = 1)).await;
    let from_elsewhere =
        async |token: &str| exchange(connect_from_elsewhere(server.bound.api).await, &get_with(token)).await;
    assert!(from_elsewhere(&server.token).await.starts_with("HTTP/1.1 200 "));
    let refused =
        until("\"code\":\"max_failures_per_second_per_address\"", async || from_elsewhere("dbs_guess").await)
            .await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: "), "{refused}");
    assert!(from_elsewhere(&server.token).await.starts_with("HTTP/1.1 200 "));
    server.call(get("/v1/secrets")).await.expect(200);
}

#[tokio::test]
async fn a_token_that_is_used_too_often_stays_known_as_good() {
    let server = TestServer::start_with(|config| {
        limited(|limits| limits.failures_per_second = 1)(config);
        config.limits.requests = Rate { interval: std::time::Duration::from_secs(3600), burst: 1 };
    })
    .await;
    let from_elsewhere =
        async |token: &str| exchange(connect_from_elsewhere(server.bound.api).await, &get_with(token)).await;
    assert!(from_elsewhere(&server.token).await.starts_with("HTTP/1.1 200 "));
    assert!(from_elsewhere(&server.token).await.contains("budget_requests"));
    until("max_failures_per_second_per_address", async || from_elsewhere("dbs_guess").await).await;
    let answer = from_elsewhere(&server.token).await;
    assert!(answer.contains("budget_requests"), "refused for its own use, not for the guesser: {answer}");
}

#[tokio::test]
async fn a_valid_token_that_was_never_used_passes_from_a_guessers_address() {
    let server = TestServer::start_with(limited(|limits| limits.failures_per_second = 1)).await;
    let from_elsewhere =
        async |token: &str| exchange(connect_from_elsewhere(server.bound.api).await, &get_with(token)).await;
    until("max_failures_per_second_per_address", async || from_elsewhere("dbs_guess").await).await;
    assert!(from_elsewhere(&server.token).await.starts_with("HTTP/1.1 200 "));
    assert!(from_elsewhere("dbs_guess").await.starts_with("HTTP/1.1 429 "));
}

#[tokio::test]
async fn guessed_join_tokens_are_stopped_by_address() {
    let server = TestServer::start_with(|config| {
        config.devbox.limits.exempt.loopback = false;
        config.devbox.limits.failures_per_second = 1;
    })
    .await;
    let csr = Applicant::new("dbx_none").request();
    let guess = async || {
        let answer = server.devbox_call(server.anonymous(), enrolment("guess", &csr)).await.unwrap();
        answer.text("code")
    };
    assert_eq!(guess().await, "invalid_join_token");
    until("max_failures_per_second_per_address", guess).await;
    // A devbox behind the guesser's address joins all the same.
    enrolled(&server).await;
    until("max_failures_per_second_per_address", guess).await;
}

#[tokio::test]
async fn an_account_with_all_its_requests_in_work_is_refused_by_name() {
    let server = TestServer::start_with(limited(|limits| limits.requests_per_account = 1)).await;
    let held = Held::default();
    let call = async || {
        exchange(TcpStream::connect(server.bound.api).await.unwrap(), &get_with(&server.token)).await
    };
    let refused = until("\"code\":\"max_requests_per_account\"", async || {
        held.add(&server, 100, 1).await;
        call().await
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: 1"), "{refused}");
    drop(held);
    until("HTTP/1.1 200 ", call).await;
}

#[tokio::test]
async fn bodies_over_the_budget_are_refused_by_name_and_other_requests_are_served() {
    let server = TestServer::start_with(limited(|limits| limits.body_bytes = 80_000)).await;
    let held = Held::default();
    let whole = unfinished_post(&server.token, 20_000, 20_000);
    let call = async || exchange(TcpStream::connect(server.bound.api).await.unwrap(), &whole).await;
    let refused = until("\"code\":\"max_body_bytes\"", async || {
        held.add(&server, 60_000, 50_000).await;
        call().await
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    server.call(get("/v1/secrets")).await.expect(200);
    drop(held);
    until("\"code\":\"invalid_body\"", call).await;
}

#[tokio::test]
async fn a_certificate_without_connections_left_is_refused_and_another_devbox_is_served() {
    let server = TestServer::start_with(|config| config.devbox.limits.connections_per_certificate = 1).await;
    let (_, greedy) = enrolled(&server).await;
    let (_, other) = enrolled(&server).await;
    // Enrolment ends its connection, and had no certificate.
    let mut held = server.tls(greedy.clone()).await.unwrap();
    held.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(held.read(&mut [0; 1_024]).await.unwrap() > 0);
    assert!(server.devbox_call(greedy, get("/")).await.is_err(), "closed without an answer");
    server.devbox_call(other, get("/")).await.unwrap().expect(404);
    assert_counted(
        &server,
        "connections_refused_total{listener=\"devbox\",reason=\"max_connections_per_certificate\"} 1",
    );
}
