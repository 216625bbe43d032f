//! Peers of the launch socket that break the protocol: they cost themselves their connection, and nobody else a launch.

use std::path::Path;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, Item, RequestBuilder};
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

async fn daemon() -> (World, Daemon) {
    let world = World::start().await;
    world.api().create("API_KEY", "s3cret").await;
    let daemon = world.daemon().await;
    (world, daemon)
}

async fn launches_go_on(daemon: &Daemon, count: usize) {
    for _ in 0..count {
        let environment = Launch::new(&daemon.socket).environment().await;
        assert_eq!(environment["API_KEY"], b"s3cret");
    }
}

/// A peer that has sent `bytes` and holds its end open.
async fn peer(socket: &Path, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The daemon may have closed its end before it has read everything.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Everything that the daemon says until it closes the connection.
async fn last_words(mut stream: UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = wait::within("the daemon to close the connection", stream.read_to_end(&mut answer)).await;
    answer
}

fn request(items: &[Item<'_>]) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut builder = RequestBuilder::new(&mut buffer, Flags::default(), 0).unwrap();
    for item in items {
        builder.push(*item).unwrap();
    }
    builder.finish().to_vec()
}

/// Messages that are no requests.
fn nonsense() -> Vec<Vec<u8>> {
    let mut huge = request(&[]);
    huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut version = request(&[]);
    version[4] = 99;
    let mut reserved = request(&[]);
    reserved[5] = 0xff;
    let mut unknown_item = request(&[Item::Only(b"API_KEY")]);
    unknown_item[HEADER_LEN] = 77;
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 4096],
        huge,
        version,
        reserved,
        unknown_item,
    ]
}

#[tokio::test]
async fn nonsense_is_answered_with_an_error_and_a_closed_connection() {
    let (_world, daemon) = daemon().await;
    for message in nonsense() {
        let answer = last_words(peer(&daemon.socket, &message).await).await;
        let header = answer.first_chunk::<HEADER_LEN>().map(AnswerHeader::decode);
        let refused = matches!(
            header,
            None | Some(Ok(AnswerHeader {
                answer: Answer::Error(ErrorCode::Invalid | ErrorCode::Version),
                ..
            }))
        );
        assert!(refused, "{message:?}: {header:?}");
        assert!(!answer.windows(6).any(|window| window == b"s3cret"), "{message:?}");
    }
    launches_go_on(&daemon, 3).await;
}

#[tokio::test]
async fn a_half_request_is_closed_after_its_deadline() {
    let (_world, daemon) = daemon().await;
    let whole = request(&[Item::Only(b"API_KEY")]);
    let mut halves = Vec::new();
    for len in 0..whole.len() {
        halves.push(peer(&daemon.socket, &whole[..len]).await);
    }
    launches_go_on(&daemon, 3).await;
    for half in halves {
        let answer = last_words(half).await;
        assert!(!answer.windows(6).any(|window| window == b"s3cret"));
    }
}

#[tokio::test]
async fn peers_that_hang_up_at_any_point_are_forgotten() {
    require_root!();
    let (_world, daemon) = daemon().await;
    let whole = request(&[Item::Only(b"API_KEY")]);
    for len in 0..=whole.len() {
        drop(peer(&daemon.socket, &whole[..len]).await);
    }
    launches_go_on(&daemon, 3).await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.program.pid())).unwrap().count();
    wait::until("the daemon to close what is over", async || (descriptors() < 64).then_some(())).await;
}

#[tokio::test]
async fn bytes_after_a_request_are_no_second_request() {
    let (_world, daemon) = daemon().await;
    let twice = [request(&[]), request(&[])].concat();
    let answer = last_words(peer(&daemon.socket, &twice).await).await;
    let header = AnswerHeader::decode(answer.first_chunk().unwrap()).unwrap();
    assert_eq!(header.answer, Answer::Error(ErrorCode::Invalid));
    assert_eq!(answer.len(), HEADER_LEN + header.len as usize, "one answer");
}

#[tokio::test]
async fn a_crowd_of_silent_and_babbling_peers_costs_no_launch() {
    let (_world, daemon) = daemon().await;
    let mut crowd = Vec::new();
    for (number, message) in nonsense().iter().cycle().take(400).enumerate() {
        let bytes = if number % 2 == 0 { &message[..message.len().min(7)] } else { &message[..] };
        crowd.push(peer(&daemon.socket, bytes).await);
    }
    launches_go_on(&daemon, 20).await;
    drop(crowd);
    launches_go_on(&daemon, 20).await;
}
