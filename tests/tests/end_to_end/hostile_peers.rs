//! Peers of the launch socket that break the protocol: they cost themselves their connection, and nobody else a launch.

use std::path::Path;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, HEADER_LEN, Item};
use devbox_secrets_tests::client::exchange;
use devbox_secrets_tests::crowd::{broken_launch_requests, launch_request};
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

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
async fn last_words(stream: UnixStream) -> Vec<u8> {
    exchange(stream, b"").await
}

#[tokio::test]
async fn nonsense_is_answered_with_an_error_and_a_closed_connection() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    for message in broken_launch_requests() {
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
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let whole = launch_request(&[Item::Only(b"API_KEY")]);
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
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let whole = launch_request(&[Item::Only(b"API_KEY")]);
    for len in 0..=whole.len() {
        drop(peer(&daemon.socket, &whole[..len]).await);
    }
    launches_go_on(&daemon, 3).await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.program.pid())).unwrap().count();
    wait::until("the daemon to close what is over", async || (descriptors() < 64).then_some(())).await;
}
