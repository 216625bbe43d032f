//! Launches before the first secrets.

use super::*;
use crate::access::peer::ByHand;
use crate::memory::Loss;

const LONG: u32 = 600_000;

fn waiting_launch(server: &Server) -> BlockingStream {
    let stream = server.connect();
    send(&stream, &request(Flags::default(), LONG, &[]));
    server.wait_for_connections(1);
    stream
}

#[test]
fn without_a_wait_the_reason_comes_nonblocking() {
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
fn a_launch_that_asked_to_wait_outlasts_a_stale_daemon_and_any_other_is_refused_nonblocking() {
    let server = Server::start();
    server.vault.lose(Loss::Stale, "the control plane is away");
    assert_eq!(server.launch(Flags::default(), LONG, &[]).code(), ErrorCode::Stale);
    let stream = server.connect();
    send(&stream, &request(Flags { patient: true, ..Flags::default() }, LONG, &[]));
    server.wait_for_connections(1);
    server.hold(1, &[("A", b"one")]);
    assert_eq!(receive(&stream).strings(), b"A=one\0");
}

#[test]
fn a_wait_goes_on_from_one_state_that_may_pass_to_the_next() {
    let server = Server::start();
    let stream = server.connect();
    send(&stream, &request(Flags { patient: true, ..Flags::default() }, LONG, &[]));
    server.wait_for_connections(1);
    for loss in [Loss::Stale, Loss::Quiesced, Loss::Starting] {
        server.vault.reopen("between two states");
        server.vault.lose(loss, "for a while");
    }
    server.hold(1, &[("A", b"one")]);
    assert_eq!(receive(&stream).strings(), b"A=one\0");
}

#[test]
fn a_stopping_daemon_sends_waiting_launches_to_the_next_one() {
    let server = Server::start();
    let stream = waiting_launch(&server);
    server.vault.lose(Loss::Stopping, "the daemon is stopping");
    let code = receive(&stream).code();
    assert!(code.may_pass(), "{code:?}: the launcher asks again");
}

#[test]
fn waiting_can_help_in_every_state_but_those_that_somebody_has_to_end() {
    for loss in Loss::ALL {
        assert_eq!(loss.code().may_pass(), !matches!(loss, Loss::Revoked | Loss::Cloned), "{loss:?}");
    }
}

#[test]
fn a_waiting_launcher_that_hangs_up_frees_its_slot() {
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

#[test]
fn secrets_replaced_while_a_waiting_launcher_is_looked_at_again_are_not_served() {
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let executable = std::env::current_exe().unwrap();
    let rule = format!("uid = {}\nexecutable = {executable:?}\nenv = ['*']", geteuid());
    let (examiner, by_hand) = ByHand::examiner();
    let server = Server::examined_by(memory, policy(&[&rule]), examiner);
    let look = || wait_until("a question", || by_hand.look());
    let stream = waiting_launch(&server);
    look();
    // Another launch, served after the first one started to wait.
    let other = server.connect();
    send(&other, &request(Flags::default(), 0, &[]));
    look();
    assert_eq!(receive(&other).code(), ErrorCode::NotReady);

    server.hold(1, &[("A", b"deleted")]);
    wait_until("the second question", || by_hand.waiting() == 1);
    server.hold(2, &[("B", b"two")]);
    look();
    assert_eq!(receive(&stream).strings(), b"B=two\0");
}
