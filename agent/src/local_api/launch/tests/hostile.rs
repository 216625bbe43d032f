//! Peers that are slow, malformed, numerous or gone cost nobody else anything.

use std::io::Write;
use std::time::Instant;

use devbox_launch_proto::MAX_REQUEST_BODY;
use proptest::prelude::*;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

use super::*;
use crate::memory::Loss;
use crate::status::Launches;
use crate::sys::test_support::become_user;
use devbox_secrets_tests::needs;

const STRANGER: u32 = 65_534;

/// Reads until the server closes.
fn closed(mut stream: &BlockingStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is a close with unread bytes.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn half_a_request_is_cut_off_while_others_are_served() {
    let server = holding_one();
    let (none, half) = (server.connect(), server.connect());
    send(&half, &request(Flags::default(), 0, &[Item::Only(b"A")])[..18]);
    let started = Instant::now();
    assert_eq!(server.everything().strings(), b"A=one\0");
    assert_eq!((closed(&none), closed(&half)), (vec![], vec![]));
    assert!(started.elapsed() >= Duration::from_millis(1_500), "the deadline, and not an error, closed it");
    server.wait_for_connections(0);
    assert_eq!(server.state.counts().abandoned, 2);
}

#[test]
fn a_huge_length_is_refused_before_any_of_it_is_read() {
    let server = holding_one();
    let mut bytes = request(Flags::default(), 0, &[]);
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let stream = server.connect();
    send(&stream, &bytes);
    let Got::Refused(ErrorCode::Invalid, text) = receive(&stream) else { panic!() };
    assert!(text.contains("4294967295"), "{text}");
}

#[test]
fn the_longest_request_is_served() {
    let server = holding_one();
    // Each takes four bytes.
    let items = vec![Item::Only(b"A"); MAX_REQUEST_BODY / 4];
    assert_eq!(server.launch(Flags::default(), 0, &items).strings(), b"A=one\0");
}

#[test]
fn another_version_is_told_apart_from_nonsense() {
    let server = holding_one();
    let code = |at: usize, byte: u8| {
        let mut bytes = request(Flags::default(), 0, &[]);
        bytes[at] = byte;
        let stream = server.connect();
        send(&stream, &bytes);
        receive(&stream).code()
    };
    assert_eq!(code(4, 9), ErrorCode::Version);
    assert_eq!(code(0, b'X'), ErrorCode::Invalid);
    assert_eq!(code(5, 0xff), ErrorCode::Invalid);
}

#[test]
fn bytes_after_the_request_are_refused() {
    let server = holding_one();
    let stream = server.connect();
    send(&stream, &[request(Flags::default(), 0, &[]), vec![0]].concat());
    assert_eq!(receive(&stream).code(), ErrorCode::Invalid);
}

#[test]
fn an_early_close_leaves_nothing_behind() {
    let server = holding_one();
    for bytes in [&b""[..], b"DX", &request(Flags::default(), 0, &[])] {
        let stream = server.connect();
        send(&stream, bytes);
        drop(stream);
    }
    server.wait_for_connections(0);
    assert_eq!(server.everything().strings(), b"A=one\0");
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    let server = holding_one();
    let mut stream = server.connect();
    for byte in request(Flags::default(), 0, &[Item::Only(b"A")]) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(receive(&stream).strings(), b"A=one\0");
}

#[test]
fn a_slow_reader_does_not_keep_lost_secrets_in_memory() {
    let server = Server::with_fallback();
    let large = vec![b'x'; 100 << 10];
    let names: Vec<_> = (0..40).map(|number| format!("NAME_{number}")).collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), large.as_slice())).collect();
    server.hold(1, &variables);
    let stream = server.connect();
    send(&stream, &request(Flags::default(), 0, &[]));
    // The header is there, so the answer is being sent; its 4 MB do not fit the socket's buffer.
    receive_header(&stream).unwrap();
    server.vault.lose(Loss::Revoked, "the devbox was shut down");
    let lost = Instant::now();
    assert_ne!(server.memory.bytes_locked(), 0, "the answer under way still holds them");
    server.wait_until_nothing_is_locked();
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());
}

#[test]
fn a_slow_reader_of_names_does_not_keep_lost_secrets_in_memory() {
    let server = Server::with_fallback();
    let names: Vec<_> = (0..2_000).map(|number| format!("NAME_{number:0>240}")).collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), b"one".as_slice())).collect();
    server.hold(1, &variables);
    let stream = server.connect();
    send(&stream, &request(Flags { list: true, ..Flags::default() }, 0, &[]));
    // As above: half a megabyte of names.
    receive_header(&stream).unwrap();
    server.vault.lose(Loss::Revoked, "the devbox was shut down");
    let lost = Instant::now();
    assert_ne!(server.memory.bytes_locked(), 0, "the answer under way still holds them");
    server.wait_until_nothing_is_locked();
    // The deadline of an answer is 5 s.
    assert!(lost.elapsed() < Duration::from_secs(4), "{:?}", lost.elapsed());
    assert_eq!(server.state.counts().served, 0);
    assert!(closed(&stream).len() < 2_000 * 240, "the whole answer is delivered");
}

#[test]
fn a_reader_that_reads_nothing_is_cut_off_while_others_are_served() {
    let large = vec![b'x'; 100 << 10];
    let names: Vec<_> = (0..40).map(|number| format!("NAME_{number}")).collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), large.as_slice())).collect();
    let server = Server::with_fallback().holding(&variables);
    let slow = server.connect();
    send(&slow, &request(Flags::default(), 0, &[]));
    receive_header(&slow).unwrap();
    assert_eq!(server.launch(Flags::default(), 0, &[Item::Only(b"NAME_7")]).strings().len(), (100 << 10) + 8);
    wait_until("an abandoned launch", || server.state.counts().abandoned == 1);
    assert!(closed(&slow).len() < 40 * (100 << 10), "the whole answer is delivered");
    server.wait_for_connections(0);
}

/// Runs `act` as `uid`, on a thread of its own.
fn as_user<'a, T: Send + 'a>(
    scope: &'a std::thread::Scope<'a, '_>,
    uid: u32,
    act: impl FnOnce() -> T + Send + 'a,
) -> std::thread::ScopedJoinHandle<'a, T> {
    scope.spawn(move || {
        become_user(uid);
        act()
    })
}

#[test]
fn a_flood_of_one_user_leaves_room_for_the_launches_of_another() {
    if !needs::root() {
        return;
    }
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let rules = ["uid = 65534\nenv = ['*']", "uid = 65533\nenv = ['*']"];
    let server = Server::with(memory, policy(&rules)).holding(&[("A", b"one")]);
    std::thread::scope(|scope| {
        let flood = as_user(scope, STRANGER, || (0..2_000).map(|_| server.connect()).collect::<Vec<_>>());
        let others = as_user(scope, STRANGER - 1, || {
            for _ in 0..200 {
                assert_eq!(server.everything().strings(), b"A=one\0");
            }
        });
        others.join().unwrap();
        let flood = flood.join().unwrap();
        let another =
            || assert_eq!(server.everything().strings(), b"A=one\0", "with all of the flood connected");
        as_user(scope, STRANGER - 1, another).join().unwrap();
        let turned_away = flood.iter().filter(|stream| is_over(stream)).count();
        assert!(turned_away >= 2_000 - 256, "{turned_away} were turned away");
    });
    server.wait_for_connections(0);
}

#[tokio::test]
async fn a_flood_of_connections_leaves_a_turn_to_everything_else() {
    const FLOOD: u64 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("launch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..FLOOD {
        drop(BlockingStream::connect(&path).unwrap());
    }
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let vault = Arc::new(Vault::new("still enrolling: wait"));
    let state = Arc::new(LaunchState::new(vault, memory, own_uid_policy()).unwrap());
    let done = || {
        let Launches { served, refused, abandoned, .. } = state.counts();
        served + refused + abandoned
    };
    // As a timer or a channel would, it gets no turn without budget.
    let shutdown = async {
        while done() == 0 {
            yield_now().await;
            consume_budget().await;
        }
    };
    serve(listener, Arc::clone(&state), shutdown).await;
    assert!((1..FLOOD).contains(&done()), "{} connections in the first turn", done());
}

/// Whether the server has closed the connection or announced its end.
fn is_over(stream: &BlockingStream) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT;
    !matches!(nix::sys::socket::recv(stream.as_raw_fd(), &mut [0], flags), Err(nix::Error::EAGAIN))
}

#[test]
fn a_range_of_subordinate_users_without_a_rule_leaves_room_for_everybody_else() {
    if !needs::root() {
        return;
    }
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let server = Server::with(memory, policy(&["uid = 65533\nenv = ['*']"])).holding(&[("A", b"one")]);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..40)
            .map(|number| {
                let flood = || (0..100).map(|_| server.connect()).collect::<Vec<_>>();
                as_user(scope, 100_000 + 1_000 * number, flood)
            })
            .collect();
        let crowd: Vec<_> = crowd.into_iter().map(|flood| flood.join().unwrap()).collect();
        assert!(server.state.counts().connections < 128, "{}", server.state.counts().connections);
        let named = as_user(scope, STRANGER - 1, || server.everything());
        assert_eq!(named.join().unwrap().strings(), b"A=one\0");
        assert_eq!(server.everything().code(), ErrorCode::Denied, "root has no rule, but a slot");
        drop(crowd);
    });
}

#[test]
fn a_stranger_is_who_the_kernel_says() {
    if !needs::root() {
        return;
    }
    let server = holding_one();
    std::thread::scope(|scope| {
        let got = scope.spawn(|| {
            become_user(STRANGER);
            server.everything()
        });
        let Got::Refused(ErrorCode::Denied, text) = got.join().unwrap() else { panic!() };
        assert!(text.contains("uid 65534"), "{text}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_stop_the_server(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), framed: bool) {
        let server = holding_one();
        if framed && bytes.len() >= 16 {
            let body = u32::try_from(bytes.len() - 16).unwrap();
            bytes[..16].copy_from_slice(&request(Flags::default(), 0, &[])[..16]);
            bytes[12..16].copy_from_slice(&body.to_le_bytes());
        }
        let stream = server.connect();
        // The server may have closed already.
        let _ = (&stream).write_all(&bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        closed(&stream);
        prop_assert_eq!(server.everything().strings(), b"A=one\0");
    }
}
