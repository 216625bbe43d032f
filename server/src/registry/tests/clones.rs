//! Two machines with one identity, and how one machine gets it back.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::devbox::{
    BOOT_LEN, BundleRequest, CONTINUED_ELSEWHERE, Continuity, IN_USE_ELSEWHERE, STEP_LEN,
};
use devbox_secrets_proto::seal::BundleKey;
use tokio::task::JoinHandle;

use super::*;

const CONTINUED: (RefusalKind, &str) = (RefusalKind::Forbidden, CONTINUED_ELSEWHERE);
const IN_USE: (RefusalKind, &str) = (RefusalKind::Forbidden, IN_USE_ELSEWHERE);

/// A machine with its daemon, which makes a step at each response.
struct Machine {
    peer: DevboxPeer,
    line: Arc<()>,
    link: Continuity,
    steps: u32,
}

impl Machine {
    /// `name` is one character: it distinguishes boots and steps.
    fn start(world: &World, identity: &IssuedIdentity, host: u8, name: char) -> Self {
        let line = Arc::new(());
        let peer = world.peer_at(identity, host).on(&line);
        let boot = name.to_string().repeat(BOOT_LEN);
        let link = Continuity { boot, after: None, step: name.to_string().repeat(STEP_LEN) };
        Self { peer, line, link, steps: 0 }
    }

    /// The same memory in another machine.
    fn copied(&self, world: &World, identity: &IssuedIdentity, host: u8) -> Self {
        let line = Arc::new(());
        let peer = world.peer_at(identity, host).on(&line);
        Self { peer, line, link: self.link.clone(), steps: 1000 * u32::from(host) }
    }

    fn restart_daemon(&mut self) {
        self.link.after = None;
        self.next_step();
    }

    fn next_step(&mut self) {
        self.steps += 1;
        self.link.step = format!("{}{:08x}", "0".repeat(STEP_LEN - 8), self.steps);
    }

    fn request(&self, known_revision: Option<u64>, wait_ms: u32) -> BundleRequest {
        let hpke_public_key = STANDARD.encode(BundleKey::generate().public_key());
        BundleRequest { hpke_public_key, known_revision, wait_ms, continuity: self.link.clone() }
    }

    async fn ask(&mut self, registry: &Registry) -> Result<(), Refusal> {
        registry.bundle(&self.peer, &self.request(None, 0)).await?;
        self.link.after = Some(self.link.step.clone());
        self.next_step();
        Ok(())
    }

    /// A request that is held; the answer is whether there was a bundle.
    fn hold(&self, registry: &Registry) -> JoinHandle<Result<bool, Refusal>> {
        let registry = registry.clone();
        let peer = self.peer.clone();
        let request = self.request(Some(1), 60_000);
        tokio::spawn(async move { Ok(registry.bundle(&peer, &request).await?.is_some()) })
    }

    fn disconnect(&mut self) {
        self.line = Arc::default();
    }
}

/// A devbox of a new account that has joined.
async fn joined() -> (World, Caller, JoinToken, IssuedIdentity) {
    let (world, caller, _, token) = World::with_devbox().await;
    let identity = world.enrol(&token).await.unwrap();
    (world, caller, token, identity)
}

/// The same, with the machine that has fetched with this identity and is connected.
async fn in_use() -> (World, Caller, JoinToken, IssuedIdentity, Machine) {
    let (world, caller, token, identity) = joined().await;
    let mut machine = Machine::start(&world, &identity, 7, 'a');
    machine.ask(&world.registry).await.unwrap();
    (world, caller, token, identity, machine)
}

/// The newest rows of the audit, oldest first: action, outcome, reason, address.
async fn newest(world: &World, count: u32) -> Vec<String> {
    let entries = world.registry.audit(None, count).await.unwrap().into_iter().rev();
    let text = |part: Option<String>| part.unwrap_or_default();
    let row = |entry: AuditEntry| {
        format!("{} {} {} {}", entry.action, entry.outcome, text(entry.reason), text(entry.remote_address))
    };
    entries.map(row).collect()
}

async fn until_held(registry: &Registry, count: usize) {
    let held = format!("devbox_secrets_server_held_requests {count}\n");
    wait::yielding("the requests to be held", || registry.metrics().text().unwrap().contains(&held)).await;
}

#[tokio::test]
async fn a_copy_of_a_machine_is_refused_for_good_and_both_places_are_audited() {
    let (world, _, _, identity, mut machine) = in_use().await;
    let mut copy = machine.copied(&world, &identity, 9);
    // The step that was in the memory both have, and the machine's own.
    machine.ask(&world.registry).await.unwrap();
    machine.ask(&world.registry).await.unwrap();
    assert_eq!(refusal(copy.ask(&world.registry).await), CONTINUED);
    let rows = [
        "devbox.clone done continued_elsewhere for 192.0.2.9 192.0.2.7",
        "devbox.bundle refused continued_elsewhere 192.0.2.9",
    ];
    assert_eq!(newest(&world, 2).await, rows);
    machine.disconnect();
    assert_eq!(refusal(copy.ask(&world.registry).await), CONTINUED);
    machine.ask(&world.registry).await.unwrap();
    let metrics = world.registry.metrics().text().unwrap();
    assert!(metrics.contains("devbox_secrets_server_clones_refused_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_machine_that_starts_with_an_identity_in_use_waits_until_its_connection_has_ended() {
    let (world, _, _, identity) = joined().await;
    let mut machine = Machine::start(&world, &identity, 7, 'a');
    let mut other = Machine::start(&world, &identity, 9, 'b');
    machine.ask(&world.registry).await.unwrap();
    assert_eq!(refusal(other.ask(&world.registry).await), IN_USE);
    let rows = [
        "devbox.clone done in_use_elsewhere for 192.0.2.9 192.0.2.7",
        "devbox.bundle refused in_use_elsewhere 192.0.2.9",
    ];
    assert_eq!(newest(&world, 2).await, rows);
    machine.disconnect();
    other.ask(&world.registry).await.unwrap();
    assert_eq!(refusal(machine.ask(&world.registry).await), CONTINUED);
}

#[tokio::test]
async fn a_restarted_daemon_and_a_restarted_server_are_no_copies() {
    let (world, _, _, identity, mut machine) = in_use().await;
    machine.ask(&world.registry).await.unwrap();
    machine.restart_daemon();
    machine.ask(&world.registry).await.unwrap();
    let mut copy = machine.copied(&world, &identity, 9);
    let restarted = open(&world.state).await.unwrap();
    machine.ask(&restarted).await.unwrap();
    machine.ask(&restarted).await.unwrap();
    assert_eq!(refusal(copy.ask(&restarted).await), CONTINUED, "the first that came is believed");
}

#[tokio::test]
async fn a_repeated_step_supersedes_the_held_request_and_is_no_sign_of_a_copy() {
    let (world, caller, _, _, mut machine) = in_use().await;
    let lost = machine.hold(&world.registry);
    until_held(&world.registry, 1).await;
    // The same request on a new connection is answered in place of the lost one, and the daemon
    // continues.
    machine.ask(&world.registry).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), lost).await.expect("long before its time");
    assert_eq!(refusal(ended.unwrap()), IN_USE);
    world.secret(&caller, "NEW", "value").await;
    let clones = world.registry.audit(None, 100).await.unwrap();
    assert!(clones.iter().all(|entry| entry.action != "devbox.clone" && entry.outcome == "done"));
}

#[tokio::test]
async fn a_new_join_token_ends_every_earlier_certificate_and_what_it_holds() {
    let (world, caller, first, _, mut machine) = in_use().await;
    let renewed = world.registry.renew(&machine.peer, &csr(first.devbox_id())).await.unwrap();
    let held = machine.hold(&world.registry);
    until_held(&world.registry, 1).await;

    let token = world.registry.new_join_token(&caller, first.devbox_id()).await.unwrap();
    assert_eq!(newest(&world, 1).await[0].split(' ').next(), Some("devbox.join_token"));
    assert!(!held.is_finished(), "a token that nobody has redeemed ends nothing");
    let fresh = world.enrol(&token).await.unwrap();
    let ended = (RefusalKind::Forbidden, "certificate_expired");
    let woken = tokio::time::timeout(Duration::from_secs(30), held).await.expect("at once");
    world.audited_refusal(woken.unwrap(), "devbox.bundle", ended.0, ended.1).await;
    assert_eq!(refusal(machine.ask(&world.registry).await), ended);
    let mut renewed = Machine::start(&world, &renewed, 7, 'c');
    assert_eq!(refusal(renewed.ask(&world.registry).await), ended);
    assert_eq!(refusal(world.registry.renew(&renewed.peer, &csr(first.devbox_id())).await), ended);

    let mut resumed = Machine::start(&world, &fresh, 9, 'b');
    resumed.ask(&world.registry).await.unwrap();
    for used in [&token, &first] {
        assert_eq!(refusal(world.enrol(used).await).0, RefusalKind::Unauthenticated);
    }
    resumed.ask(&world.registry).await.unwrap();
}

#[tokio::test]
async fn a_devbox_that_joins_anew_waits_for_no_earlier_connection() {
    let (world, caller, first, _, _machine) = in_use().await;
    let token = world.registry.new_join_token(&caller, first.devbox_id()).await.unwrap();
    let fresh = world.enrol(&token).await.unwrap();
    Machine::start(&world, &fresh, 9, 'b').ask(&world.registry).await.unwrap();
}

#[tokio::test]
async fn a_devbox_that_may_have_nothing_any_more_is_forgotten() {
    let (world, caller, token, _, mut machine) = in_use().await;
    assert_eq!(world.registry.0.sessions.len(), 1);
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    assert!(machine.ask(&world.registry).await.is_err());
    assert_eq!(world.registry.0.sessions.len(), 0);
    world.registry.set_devbox_capability(&Actor::Server, "acme", true).await.unwrap();
    machine.ask(&world.registry).await.unwrap();
    world.registry.shutdown_devbox(&caller, token.devbox_id()).await.unwrap();
    assert_eq!(world.registry.0.sessions.len(), 0);
}

#[tokio::test]
async fn a_peer_admitted_before_its_identity_moved_blocks_no_later_one() {
    let (world, caller, first, identity) = joined().await;
    let machine = Machine::start(&world, &identity, 7, 'a');
    let admitting = world.registry.0.sessions.admitting(machine.peer.devbox_id());
    let admitted = admitting.move_count();
    let admission = world.registry.admit(&machine.peer, crate::store::Action::DevboxBundle).await.unwrap();
    let token = world.registry.new_join_token(&caller, first.devbox_id()).await.unwrap();
    let fresh = world.enrol(&token).await.unwrap();
    let link = clone_detection::Link::parse(&machine.link).unwrap();
    let claim = world.registry.claim_session(&machine.peer, link, &admission, admitted).await.unwrap();
    assert!(claim.is_none(), "its certificate has ended");
    Machine::start(&world, &fresh, 9, 'b').ask(&world.registry).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_tries_again_and_again_is_refused_each_time_and_audited_once_a_minute() {
    let (world, _, _, identity, _machine) = in_use().await;
    let mut other = Machine::start(&world, &identity, 9, 'b');
    for _ in 0..20 {
        assert_eq!(refusal(other.ask(&world.registry).await), IN_USE);
    }
    let mut third = Machine::start(&world, &identity, 8, 'c');
    assert_eq!(refusal(third.ask(&world.registry).await), IN_USE);
    let audit = world.registry.audit(None, 100).await.unwrap();
    let clones = audit.iter().filter(|entry| entry.action == "devbox.clone");
    assert_eq!(clones.count(), 2, "one an address");
    let refused = audit.iter().filter(|entry| entry.outcome == "refused");
    assert_eq!(refused.count(), 2);
    let metrics = world.registry.metrics().text().unwrap();
    assert!(metrics.contains("devbox_secrets_server_clones_refused_total 21\n"), "{metrics}");
}

async fn renew(world: &World, peer: &DevboxPeer) -> Result<IssuedIdentity, Refusal> {
    world.registry.renew(peer, &csr(peer.devbox_id().as_str())).await
}

#[tokio::test]
async fn a_stolen_certificate_renews_nothing_while_its_devbox_is_connected_elsewhere() {
    let (world, _, _, identity) = joined().await;
    let mut machine = Machine::start(&world, &identity, 1, 'a');
    machine.ask(&world.registry).await.unwrap();
    let thief = Machine::start(&world, &identity, 2, 'b');
    assert_eq!(refusal(renew(&world, &thief.peer).await), IN_USE);
    let rows = world.registry.audit(None, 2).await.unwrap();
    assert_eq!([&rows[0].action, &rows[1].action], ["devbox.renew", "devbox.clone"]);
    assert_eq!(rows[1].remote_address.as_deref(), Some("192.0.2.1"), "the machine that goes on");
    // Its own machine renews over another connection too, and a machine whose connection is closed
    // blocks no other.
    renew(&world, &Machine::start(&world, &identity, 1, 'a').peer).await.unwrap();
    machine.disconnect();
    renew(&world, &thief.peer).await.unwrap();
}

#[tokio::test]
async fn of_two_holders_of_one_certificate_who_both_renew_one_is_refused_from_then_on() {
    let (world, _, _, identity) = joined().await;
    let machine = world.peer_at(&identity, 1);
    let thief = world.peer_at(&identity, 2);
    let stolen = renew(&world, &thief).await.unwrap();
    let mut stolen = Machine::start(&world, &stolen, 2, 'b');
    stolen.ask(&world.registry).await.unwrap();
    let held = stolen.hold(&world.registry);
    stolen.disconnect();
    renew(&world, &machine).await.unwrap();
    let ended = (RefusalKind::Forbidden, "certificate_expired");
    assert_eq!(refusal(held.await.unwrap()), ended, "also a request that is held");
    assert_eq!(refusal(renew(&world, &stolen.peer).await), ended);
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_done_again_and_two_certificates_are_valid_at_most() {
    let (world, _, _, identity) = joined().await;
    let first = world.peer(&identity);
    let lost = world.peer(&renew(&world, &first).await.unwrap());
    let second = world.peer(&renew(&world, &first).await.unwrap());
    assert!(renew(&world, &lost).await.is_err());
    let third = world.peer(&renew(&world, &second).await.unwrap());
    assert!(renew(&world, &first).await.is_err(), "the one before the last two");
    renew(&world, &third).await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_shuts_a_devbox_down_disturbs_nothing_of_it() {
    let (world, _, token, identity) = joined().await;
    let stranger = world.caller("stranger").await;
    let mut machine = Machine::start(&world, &identity, 7, 'a');
    machine.ask(&world.registry).await.unwrap();
    let copy = machine.copied(&world, &identity, 9);
    machine.ask(&world.registry).await.unwrap();
    let held = machine.hold(&world.registry);
    until_held(&world.registry, 1).await;
    for id in [token.devbox_id(), "dbx_none"] {
        let refused = refusal(world.registry.shutdown_devbox(&stranger, id).await);
        assert_eq!(refused.0, RefusalKind::NotFound);
    }
    assert_eq!(world.registry.0.sessions.len(), 1);
    assert_eq!(refusal({ copy }.ask(&world.registry).await), CONTINUED, "the copy is still known as one");
    assert!(!held.is_finished(), "the held request stays");
}

#[tokio::test]
async fn other_devboxes_that_move_make_no_request_start_over() {
    let (world, _, _, identity) = joined().await;
    let other = world.caller("other").await;
    let machine = Machine::start(&world, &identity, 7, 'a');
    let admitting = world.registry.0.sessions.admitting(machine.peer.devbox_id());
    let admitted = admitting.move_count();
    let admission = world.registry.admit(&machine.peer, crate::store::Action::DevboxBundle).await.unwrap();
    let (devbox, _) = world.joined(&other, &[]).await;
    world.registry.shutdown_devbox(&other, devbox.id.as_str()).await.unwrap();
    let link = clone_detection::Link::parse(&machine.link).unwrap();
    let claim = world.registry.claim_session(&machine.peer, link, &admission, admitted).await.unwrap();
    assert!(claim.is_some());
    drop(admitting);
    assert_eq!(world.registry.0.sessions.admitting_count(), 0);
}
