//! One identity in two machines: one of them goes on, the other is refused, and both are on record.

use std::net::Ipv4Addr;
use std::time::Duration;

use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::devbox::{CONTINUED_ELSEWHERE, IN_USE_ELSEWHERE};
use devbox_secrets_tests::client::{Answer, Api, Protocol};
use devbox_secrets_tests::continuity::Machine;
use devbox_secrets_tests::devbox::{Applicant, Listener};
use devbox_secrets_tests::netns::{self, Fault};
use devbox_secrets_tests::world::{Devbox, World};
use devbox_secrets_tests::{require_netns, wait};
use hyper::header::CONNECTION;
use serde_json::Value;

const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Until the kernel has given up a machine that vanished, 20 seconds, and some patience. HTTP alone would need 80: the
/// request's time, then the connection's.
const VANISHED: Duration = Duration::from_secs(60);

/// A server, a devbox, and a listener that shows its certificate.
async fn scene() -> (World, Devbox, Listener) {
    let world = World::start_with(&["--admin", "127.0.0.1:0"]).await;
    world.api().create("SECRET", "value").await;
    let devbox = world.devbox("box").await;
    let listener = Listener::new(world.server.ready.devbox_address());
    let listener = listener.enrolled(&devbox.join_token, &devbox.id).await;
    (world, devbox, listener)
}

fn revision(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    Bundle::parse(&answer.body).unwrap().revision
}

fn refused(answer: Answer, code: &str) {
    assert_eq!(answer.expect(403).text("code"), code);
}

/// The audit's rows with this code, as action, outcome and address.
async fn rows(world: &World, code: &str) -> Vec<(String, String, String)> {
    let records = world.server.operator_json(&["audit", "--limit", "200"]).await;
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let about = |row: &&Value| text(row, "reason").starts_with(code);
    let row = |row: &Value| (text(row, "action"), text(row, "outcome"), text(row, "remote_address"));
    records.as_array().unwrap().iter().filter(about).map(row).collect()
}

async fn both_are_on_record(world: &World, code: &str) {
    let expected = [("devbox.bundle", "refused", ELSEWHERE), ("devbox.clone", "done", HERE)];
    let expected = expected
        .map(|(action, outcome, address)| (action.to_owned(), outcome.to_owned(), address.to_string()));
    wait::until("both machines to be in the audit", async || {
        let rows = rows(world, code).await;
        expected.iter().all(|row| rows.contains(row)).then_some(())
    })
    .await;
}

/// Returns once one request is held.
async fn is_held(world: &World) {
    let address = world.server.ready.admin.as_ref().unwrap().strip_prefix("http://").unwrap();
    let admin = Api { address: address.parse().unwrap(), ..world.api().without_token() };
    wait::until("the request to be held", async || {
        let metrics = admin.get("/metrics").await.body_text();
        metrics.contains("devbox_secrets_server_held_requests 1\n").then_some(())
    })
    .await;
}

/// Asks until the identity is free.
async fn takes_over(machine: &mut Machine) {
    wait::within_limit(VANISHED, "the identity to be free", async {
        loop {
            let answer = machine.ask(None, 0).await.unwrap();
            if answer.status == 200 {
                return;
            }
            refused(answer, IN_USE_ELSEWHERE);
            // As a daemon backs off: an identity's bundle requests are budgeted.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_copy_of_a_running_machine_is_refused_and_both_are_on_record() {
    let (world, _, listener) = scene().await;
    let mut machine = Machine::start(&listener, Protocol::Http1, HERE, 'a').await;
    let revision = revision(&machine.ask(None, 0).await.unwrap());
    let mut copy = machine.copied(ELSEWHERE).await;
    // The step that was in the memory both have, and the machine's own.
    assert_eq!(machine.ask(Some(revision), 0).await.unwrap().status, 204);
    assert_eq!(machine.ask(Some(revision), 0).await.unwrap().status, 204);
    refused(copy.ask(Some(revision), 0).await.unwrap(), CONTINUED_ELSEWHERE);
    both_are_on_record(&world, CONTINUED_ELSEWHERE).await;

    world.api().update("SECRET", "changed").await;
    refused(copy.ask(Some(revision), 0).await.unwrap(), CONTINUED_ELSEWHERE);
    copy.restart_daemon();
    refused(copy.ask(None, 0).await.unwrap(), IN_USE_ELSEWHERE);
    assert_eq!(machine.ask(Some(revision), 0).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_copy_that_holds_the_same_request_gets_no_change_once_the_other_has_gone_on() {
    let (world, _, listener) = scene().await;
    let mut machine = Machine::start(&listener, Protocol::Http1, HERE, 'a').await;
    let revision = revision(&machine.ask(None, 0).await.unwrap());
    let mut copy = machine.copied(ELSEWHERE).await;
    let held = tokio::spawn(async move {
        let answer = copy.ask(Some(revision), 60_000).await.unwrap();
        (copy, answer)
    });
    is_held(&world).await;
    assert_eq!(machine.ask(Some(revision), 0).await.unwrap().status, 204);
    assert_eq!(machine.ask(Some(revision), 0).await.unwrap().status, 204);
    let (mut copy, answer) = held.await.unwrap();
    refused(answer, IN_USE_ELSEWHERE);
    refused(copy.ask(Some(revision), 0).await.unwrap(), CONTINUED_ELSEWHERE);
}

#[tokio::test]
async fn lost_answers_a_restarted_daemon_and_a_restarted_server_are_no_copies() {
    let (mut world, _, listener) = scene().await;
    let mut machine = Machine::start(&listener, Protocol::Http1, HERE, 'a').await;
    machine.ask_in_vain(None, 0).await.unwrap();
    revision(&machine.ask(None, 0).await.unwrap());
    machine.ask_in_vain(None, 0).await.unwrap();
    revision(&machine.ask(None, 0).await.unwrap());
    machine.restart_daemon();
    revision(&machine.ask(None, 0).await.unwrap());
    world.server.program.stop().await;
    world.server.start_again().await;
    let mut machine = machine.copied(HERE).await;
    revision(&machine.ask(None, 0).await.unwrap());
    assert_eq!(rows(&world, "").await.iter().filter(|row| row.1 == "refused").count(), 0);
}

#[tokio::test]
async fn a_reboot_is_no_copy() {
    let (_world, _, listener) = scene().await;
    let mut machine = Machine::start(&listener, Protocol::Http1, HERE, 'a').await;
    revision(&machine.ask(None, 0).await.unwrap());
    drop(machine);
    takes_over(&mut Machine::start(&listener, Protocol::Http1, HERE, 'b').await).await;
}

async fn waits_for_the_end_of_the_connection(protocol: Protocol) {
    let (world, _, listener) = scene().await;
    let mut machine = Machine::start(&listener, protocol, HERE, 'a').await;
    let revision = revision(&machine.ask(None, 0).await.unwrap());
    let mut late = machine.copied(HERE).await;
    let held = tokio::spawn(async move { machine.ask(Some(revision), 60_000).await });
    is_held(&world).await;
    let mut other = Machine::start(&listener, protocol, ELSEWHERE, 'b').await;
    refused(other.ask(None, 0).await.unwrap(), IN_USE_ELSEWHERE);
    both_are_on_record(&world, IN_USE_ELSEWHERE).await;

    held.abort();
    takes_over(&mut other).await;
    refused(late.ask(Some(revision), 0).await.unwrap(), CONTINUED_ELSEWHERE);
}

#[tokio::test]
async fn a_start_elsewhere_waits_until_the_held_connection_has_ended_http_1() {
    waits_for_the_end_of_the_connection(Protocol::Http1).await;
}

#[tokio::test]
async fn a_start_elsewhere_waits_until_the_held_connection_has_ended_http_2() {
    waits_for_the_end_of_the_connection(Protocol::Http2).await;
}

#[test]
fn a_machine_that_vanished_without_a_word_frees_its_identity() {
    require_netns!();
    netns::apart(async |wire| {
        let world = World::start_with(&["--devbox", &format!("{}:0", netns::SERVER)]).await;
        let devbox = world.devbox("box").await;
        let listener = Listener::new(world.server.ready.devbox_address());
        let listener = listener.enrolled(&devbox.join_token, &devbox.id).await;
        let stream = wire.connect_from_devbox(listener.address);
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut machine = Machine::start_over(&listener, Protocol::Http1, stream, 'a').await;
        let revision = revision(&machine.ask(None, 0).await.unwrap());
        let _held = tokio::spawn(async move { machine.ask(Some(revision), 60_000).await });
        let mut other = Machine::start(&listener, Protocol::Http1, server_itself(), 'b').await;
        refused(other.ask(None, 0).await.unwrap(), IN_USE_ELSEWHERE);
        wire.fault(Fault::Drop);
        takes_over(&mut other).await;
    });
}

fn server_itself() -> Ipv4Addr {
    netns::SERVER.parse().unwrap()
}

#[tokio::test]
async fn a_new_join_token_moves_the_identity_and_ends_the_old_certificate_at_once() {
    let (world, devbox, listener) = scene().await;
    let mut machine = Machine::start(&listener, Protocol::Http1, HERE, 'a').await;
    let known = revision(&machine.ask(None, 0).await.unwrap());
    let held = tokio::spawn(async move {
        let answer = machine.ask(Some(known), 60_000).await.unwrap();
        (machine, answer)
    });
    is_held(&world).await;

    let path = format!("/v1/devboxes/{}/join_token", devbox.id);
    let answer = world.api().post_empty(&path).await;
    assert_eq!(answer.headers[CONNECTION], "close", "its buffers hold the token");
    let token = answer.expect(200).json()["join_token"].as_str().unwrap().to_owned();
    let resumed = Listener::new(world.server.ready.devbox_address()).enrolled(&token, &devbox.id).await;
    let (mut machine, answer) = held.await.unwrap();
    refused(answer, "certificate_expired");
    refused(machine.ask(None, 0).await.unwrap(), "certificate_expired");
    refused(listener.renew(&Applicant::new(&devbox.id)).await.unwrap(), "certificate_expired");
    let mut resumed = Machine::start(&resumed, Protocol::Http1, ELSEWHERE, 'b').await;
    revision(&resumed.ask(None, 0).await.unwrap());
}

#[tokio::test]
async fn an_operator_makes_a_join_token_too() {
    let (world, devbox, _) = scene().await;
    let made = world.server.operator_json(&["devbox", "join-token", &devbox.id]).await;
    let token = made["join_token"].as_str().unwrap();
    let listener = Listener::new(world.server.ready.devbox_address());
    listener.enrolled(token, &devbox.id).await;
    listener.enroll(token, &Applicant::new(&devbox.id)).await.refusal(401);
    let absent = world.server.operator(&["devbox", "join-token", "dbx_none"], b"").await;
    assert_eq!(absent.status, 1, "{}", absent.stderr);
}
