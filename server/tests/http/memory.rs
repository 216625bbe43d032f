//! A value is in the server's memory only as long as its request, even if the client keeps its
//! connection.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::program::Dev;

/// How long a closed connection may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a request carries its body.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunked,
}

fn request(token: &str, path: &str, body: &str, framing: Framing) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n"
    );
    match framing {
        Framing::Length => format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        Framing::Chunked => {
            let chunks: String = body
                .as_bytes()
                .chunks(1_000)
                .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
                .collect();
            format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").into_bytes()
        }
    }
}

/// A request that stores `value` as the secret `LOGGED`.
pub(crate) fn post_value(token: &str, value: &str) -> Vec<u8> {
    let body = format!(r#"{{"name": "LOGGED", "value": "{value}"}}"#);
    request(token, "/v1/secrets", &body, Framing::Length)
}

/// Sends `request` and reads what comes until the server closes its side.
pub(crate) fn exchange(address: &str, request: &[u8]) -> Vec<u8> {
    exchange_and_keep(address, request).1
}

/// As [`exchange`]; the client's side stays open.
fn exchange_and_keep(address: &str, request: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server closes a connection that carried a value");
    (stream, answer)
}

/// How often `needle` is in the readable memory of `pid`; `None` if this user may not look.
fn occurrences(pid: u32, needle: &[u8]) -> Option<usize> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let count = maps.lines().filter_map(range).map(|(start, end)| {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        let read = memory.read_at(&mut bytes, start).unwrap_or(0);
        bytes[..read].windows(needle.len()).filter(|window| *window == needle).count()
    });
    Some(count.sum())
}

/// A readable mapping that the kernel does not make up on the fly.
fn range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let range = fields.next()?;
    let permissions = fields.next()?;
    let (start, end) = range.split_once('-')?;
    let readable = permissions.starts_with('r') && !line.contains("[v");
    let parse = |hex| u64::from_str_radix(hex, 16).ok();
    readable.then_some((parse(start)?, parse(end)?))
}

/// Fails unless `canary` leaves the server's memory. Returns false if this user may not look.
fn vanishes(dev: &Dev, canary: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match occurrences(dev.child.id(), canary.as_bytes()) {
            None => return false,
            Some(0) => return true,
            Some(left) => assert!(Instant::now() < deadline, "{left} copies of {canary} are still there"),
        }
        std::thread::yield_now();
    }
}

fn canary(index: usize) -> String {
    format!("canary{index}x{:08x}", std::process::id())
}

#[test]
fn a_value_leaves_memory_with_its_request_though_the_client_holds_on() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("state"));
    if occurrences(dev.child.id(), b"healthz").is_none() {
        eprintln!("not tried: only root may read the memory of an undumpable process");
        return;
    }
    let found = occurrences(dev.child.id(), b"openapi.json");
    assert!(found > Some(0), "the search finds what is there");
    let token = dev.text("token").to_owned();
    let mut index = 0;
    for (path, bearer, status) in [
        ("/v1/secrets", token.as_str(), "200"),
        ("/v1/secrets", "wrong", "401"),
        ("/nope", token.as_str(), "404"),
    ] {
        for (length, framing) in [(1, Framing::Length), (200, Framing::Chunked), (6_000, Framing::Length)] {
            index += 1;
            let canary = canary(index);
            // Escapes take the parser's other way.
            let value = format!("{}\\n\\u00e9", canary.repeat(length));
            let body = format!(r#"{{"name": "S{index}", "value": "{value}"}}"#);
            let request = request(bearer, path, &body, framing);
            let (_held_open, answer) = exchange_and_keep(dev.address(), &request);
            let start = String::from_utf8_lossy(&answer[..12.min(answer.len())]).into_owned();
            assert_eq!(start, format!("HTTP/1.1 {status}"), "{path} {length} {framing:?}");
            vanishes(&dev, &canary);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_leaves_memory_though_an_http_2_client_holds_on() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("state"));
    for (index, length) in [1, 200, 5_000].into_iter().enumerate() {
        let canary = canary(100 + index);
        let stream = tokio::net::TcpStream::connect(dev.address()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let ended = tokio::spawn(connection);
        let body = format!(r#"{{"name": "H{index}", "value": "{}"}}"#, canary.repeat(length));
        let request = Request::post(format!("{}/v1/secrets", dev.text("api")))
            .header("authorization", format!("Bearer {}", dev.text("token")))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        // GOAWAY ends the connection though `sender` is still there.
        tokio::time::timeout(PATIENCE, ended).await.expect("the server ends it").unwrap().unwrap();
        tokio::task::block_in_place(|| vanishes(&dev, &canary));
        drop(sender);
    }
}
