//! One address, certificate or account that uses up its budget is refused by name, and others go on.

use std::net::SocketAddr;

use devbox_secrets_server::config::{Config, Exempt, ListenerLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

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

async fn exchange(mut stream: TcpStream, request: &str) -> String {
    // The server may refuse, and close, before the request is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
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
