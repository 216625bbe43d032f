//! Launches that come before the first secrets.

use super::*;
use crate::memory::Loss;

const LONG: u32 = 600_000;

fn waiting_launch(server: &Server) -> BlockingStream {
    let stream = server.connect();
    send(&stream, &request(Flags::default(), LONG, &[]));
    server.wait_for_connections(1);
    stream
}

#[test]
fn without_a_wait_the_reason_comes_at_once() {
    let server = Server::start();
    let reason = "still enrolling: wait".to_owned();
    assert_eq!(server.everything(), Got::Refused(ErrorCode::NotReady, reason));
}

#[test]
fn a_waiting_launch_gets_the_first_secrets() {
    let server = Server::start();
    let stream = waiting_launch(&server);
    server.hold(1, &[("A", b"one")]);
    assert_eq!(receive(&stream).strings(), b"A=one\0");
}

#[test]
fn a_wait_that_ends_in_vain_says_why() {
    let server = Server::start();
    assert_eq!(server.launch(Flags::default(), 50, &[]).code(), ErrorCode::NotReady);
}

#[test]
fn a_waiting_launch_learns_that_there_will_be_none() {
    let server = Server::start();
    let stream = waiting_launch(&server);
    server.vault.lose(Loss::Revoked, "the devbox was shut down");
    assert_eq!(receive(&stream).code(), ErrorCode::Denied);
}

#[test]
fn a_waiting_launcher_that_hangs_up_frees_its_place() {
    let server = Server::start();
    drop(waiting_launch(&server));
    server.wait_for_connections(0);
    wait_until("an abandoned launch", || server.state.counts().abandoned == 1);
}

#[test]
fn a_peer_without_a_rule_does_not_get_to_wait() {
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let server = Server::with(memory, Policy::default());
    assert_eq!(server.launch(Flags::default(), LONG, &[]).code(), ErrorCode::Denied);
}

#[test]
fn a_rule_taken_away_during_the_wait_counts() {
    let server = Server::start();
    let stream = waiting_launch(&server);
    server.state.set_policy(Policy::default());
    server.hold(1, &[("A", b"one")]);
    assert_eq!(receive(&stream).code(), ErrorCode::Denied);
}
