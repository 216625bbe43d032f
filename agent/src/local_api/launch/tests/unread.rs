//! Launchers that do not read their answers.

use devbox_launch_proto::{ErrorCode, marked_len};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::memory::Loss;
use crate::sys::test_support::{become_user, block_on, in_a_process_of_its_own, limit_locked_memory};
use devbox_secrets_tests::needs;

const DEFAULT: Flags = Flags { list: false, inline: false, patient: false };
const INLINE: Flags = Flags { inline: true, ..DEFAULT };

/// Six bytes of strings that were wiped, and their mark.
const WITHDRAWN: [u8; 7] = *b"\0\0\0\0\0\0\x01";

/// Reads the answer late. Returns the strings with their mark.
fn found(stream: &BlockingStream) -> Vec<u8> {
    let (header, descriptor) = receive_header(stream).unwrap();
    let len = marked_len(header.len as usize);
    let pages = LockedPages::received(&descriptor.unwrap(), len).unwrap();
    pages.bytes()[..len].to_vec()
}

#[test]
fn an_unread_answer_keeps_its_place_and_its_memory_until_it_is_read() {
    let server = holding_one();
    for flags in [DEFAULT, INLINE] {
        let stream = server.unread(flags);
        wait_until("the launch to be counted", || server.state.counts().served > 0);
        assert_eq!(server.state.counts().connections, 1);
        assert_eq!(receive(&stream).strings(), b"A=one\0");
        // The answer is read, so the slot is free although the connection is open.
        server.wait_for_connections(0);
        drop(stream);
    }
}

#[test]
fn a_launcher_that_reads_in_its_own_time_finds_its_variables() {
    let server = holding_one();
    let stream = server.unread(DEFAULT);
    for _ in 0..20 {
        assert_eq!(server.everything().strings(), b"A=one\0");
    }
    assert_eq!(receive(&stream).strings(), b"A=one\0");
}

#[test]
fn unread_answers_are_wiped_when_their_secrets_are_revoked_or_replaced() {
    let server = holding_one();
    if !has_descriptors(&server) {
        return;
    }
    let outdated = "launches_withdrawn_total{reason=\"outdated\"} ";
    let stream = server.unread(DEFAULT);
    server.hold(2, &[("B", b"two")]);
    wait_until("a withdrawal", || server.metric(&format!("{outdated}1\n")));
    assert_eq!(found(&stream), WITHDRAWN);

    let stream = server.unread(DEFAULT);
    server.vault.lose(Loss::Revoked, "the devbox was shut down");
    server.wait_until_nothing_is_locked();
    wait_until("a second withdrawal", || server.metric(&format!("{outdated}2\n")));
    assert_eq!(server.state.counts().connections, 1, "the kernel still has the message");
    assert_eq!(server.state.slots.bytes(), 6, "and with it the memory");
    assert_eq!(found(&stream), WITHDRAWN);
    server.wait_for_connections(0);
    assert_eq!(server.state.slots.bytes(), 0);
}

#[test]
fn unread_answers_are_wiped_even_if_a_slow_reader_keeps_their_generation() {
    let server = holding_one();
    if !has_descriptors(&server) {
        return;
    }
    let stream = server.unread(DEFAULT);
    // As an inline answer that is being sent does.
    let _kept = server.vault.current().unwrap();
    server.vault.lose(Loss::Revoked, "the devbox was shut down");
    wait_until("a withdrawal", || server.metric("launches_withdrawn_total{reason=\"outdated\"} 1\n"));
    assert_eq!(found(&stream), WITHDRAWN);
}

#[test]
fn unread_answers_are_wiped_after_their_deadline() {
    let server = holding_one();
    if !has_descriptors(&server) {
        return;
    }
    let stream = server.unread(DEFAULT);
    wait_until("a withdrawal", || server.metric("launches_withdrawn_total{reason=\"deadline\"} 1\n"));
    assert_eq!(found(&stream), WITHDRAWN);
    assert_eq!(server.everything().strings(), b"A=one\0");
}

#[test]
fn unread_answers_are_wiped_when_the_daemon_stops() {
    let mut server = holding_one();
    if !has_descriptors(&server) {
        return;
    }
    let stream = server.unread(DEFAULT);
    drop(server.stop.take());
    server.thread.take().unwrap().join().unwrap();
    assert_eq!(found(&stream), WITHDRAWN);
}

#[test]
fn a_refusal_that_is_not_read_keeps_its_place_too() {
    let server = Server::start();
    let stream = server.unread(DEFAULT);
    assert_eq!(server.state.counts().connections, 1);
    assert_eq!(receive(&stream).code(), ErrorCode::NotReady);
    server.wait_for_connections(0);
}

#[test]
fn a_user_who_reads_no_answer_gets_no_more_than_its_share_and_others_go_on() {
    if !needs::root() {
        return;
    }
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let rules = ["uid = 65534\nenv = ['*']", "uid = 65533\nenv = ['*']"];
    let server = Server::with(memory, policy(&rules)).holding(&[("A", b"one")]);
    let served = || server.state.counts().served;
    let as_user = |uid, act: &(dyn Fn() -> Vec<BlockingStream> + Sync)| {
        std::thread::scope(|scope| {
            let user = scope.spawn(move || {
                become_user(uid);
                act()
            });
            user.join().unwrap()
        })
    };
    for flags in [DEFAULT, INLINE] {
        let before = served();
        let hoard = as_user(65_534, &|| (0..600).map(|_| asked(&server, flags)).collect());
        as_user(65_533, &|| {
            for _ in 0..100 {
                assert_eq!(server.everything().strings(), b"A=one\0");
            }
            Vec::new()
        });
        let hoarded = served() - before - 100;
        assert!((100..=256).contains(&hoarded), "{hoarded} answers wait for the one user");
        drop(hoard);
        server.wait_for_connections(0);
    }
}

#[test]
fn answers_that_were_just_read_take_no_memory_from_the_next_launches() {
    in_a_process_of_its_own("local_api::launch::tests::unread::child_with_a_small_share_of_locked_memory");
}

#[test]
#[ignore = "run in a process of its own by answers_that_were_just_read_take_no_memory_from_the_next_launches"]
fn child_with_a_small_share_of_locked_memory() {
    limit_locked_memory(1 << 20);
    let value = vec![b'v'; 12 << 10];
    let server = Server::start().holding(&[("A", &value)]);
    if !has_descriptors(&server) {
        return;
    }
    for _ in 0..50 {
        let Got::Descriptor(strings) = server.everything() else { panic!("answered by value") };
        assert_eq!(strings.len(), (12 << 10) + 3);
    }
}

/// Sends a request and ignores the answer.
fn asked(server: &Server, flags: Flags) -> BlockingStream {
    let stream = server.connect();
    // A refused connection may be closed by now.
    let _ = std::io::Write::write_all(&mut &stream, &request(flags, 0, &[]));
    stream
}

#[test]
fn an_answer_is_inline_and_counted_if_the_kernel_sends_no_descriptor() {
    in_a_process_of_its_own("local_api::launch::tests::unread::child_that_may_have_no_descriptor_in_flight");
}

#[test]
#[ignore = "run in a process of its own by an_answer_is_inline_and_counted_if_the_kernel_sends_no_descriptor"]
fn child_that_may_have_no_descriptor_in_flight() {
    let server = holding_one();
    if !has_descriptors(&server) {
        return;
    }
    // Prepared pages need no new descriptor: a limit below the number in flight stops only the
    // sending.
    let own = server.unread(DEFAULT);
    let connected: Vec<_> = (0..2).map(|_| server.connect()).collect();
    server.wait_for_connections(3);
    wait_until("prepared pages", || server.state.pool.ready() >= connected.len());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    for stream in &connected {
        send(stream, &request(DEFAULT, 0, &[]));
        wait_until("an answer", || has_bytes(stream));
    }
    setrlimit(Resource::RLIMIT_NOFILE, 1_024.min(hard), hard).unwrap();
    for stream in &connected {
        assert_eq!(receive(stream), Got::Inline(b"A=one\0".to_vec()));
    }
    assert!(server.metric("launches_inline_total{reason=\"in_flight\"} 2\n"));
    assert_eq!(receive(&own).strings(), b"A=one\0");
}

#[test]
fn secrets_replaced_while_pages_for_them_are_made_are_not_sent() {
    let large = vec![b'1'; 100_000];
    let server = Server::start().holding(&[("A", &large), ("B", &large)]);
    if !has_descriptors(&server) {
        return;
    }
    // The one thread that makes large pages is busy for a while.
    let state = std::sync::Arc::clone(&server.state);
    let busy = std::thread::spawn(move || {
        block_on(async {
            for _ in 0..4 {
                drop(state.pool.take(64 << 20).await);
            }
        });
    });
    let stream = server.connect();
    send(&stream, &request(DEFAULT, 0, &[]));
    wait_until("the launch to want pages", || server.state.slots.bytes() > 0);
    server.hold(2, &[("C", b"two")]);
    let is_early = has_bytes(&stream);
    let got = receive(&stream);
    assert!(is_early || got.strings() == b"C=two\0", "old secrets were sent after they were replaced");
    busy.join().unwrap();
}
