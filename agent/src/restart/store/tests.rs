//! Images left by one daemon and taken over by another, with a real keyring and real locked memory. The service manager in
//! between is in the tests under a real systemd.

use std::time::Duration;

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

use super::*;
use crate::identity::TriedTokens;
use crate::memory::test_support::SealedBundle;
use crate::restart::Stored;
use crate::sys::test_support::memories;
use devbox_secrets_tests::needs::skipped;

const SERVER: &str = "https://control.example:8443";

fn store(memory: &SecretMemory) -> Option<Store> {
    let (mut store, _) = Store::open(memory, &SERVER.parse().unwrap(), Vec::new());
    store.keyring = Some(Keyring::open().map_err(|error| skipped(&format!("a keyring: {error}"))).ok()?);
    Some(store)
}

fn identity() -> Identity {
    identity_until(2050)
}

fn identity_until(year: i32) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.not_after = date_time_ymd(year, 1, 1);
    parameters.subject_alt_names = vec![SanType::URI("spiffe://test/devbox/dbx_1".try_into().unwrap())];
    let certificate = parameters.self_signed(&key).unwrap().pem();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut tried = TriedTokens::default();
    tried.note(&token());
    Identity::new(certificate.as_bytes(), der, certificate.as_bytes()).unwrap().with_tried_tokens(tried)
}

fn token() -> JoinToken {
    JoinToken::new("dbx_1", SecretBytes::new(b"secret".to_vec()), [0; 32]).unwrap()
}

fn in_a_minute() -> BootTime {
    BootTime::now() + Duration::from_secs(60)
}

/// Stores an image, and returns the descriptor that the service manager would pass to a successor.
fn leave(store: &Store, kind: Kind, parts: Parts<'_>, until: BootTime) -> (String, OwnedFd) {
    let (slot, descriptor) = store.seal(kind, parts, until).unwrap();
    store.keyring.as_ref().unwrap().put(&slot.id, &slot.key, until).unwrap();
    (slot.name(), descriptor)
}

fn leave_secrets(store: &Store, generation: &Generation, until: BootTime) -> (String, OwnedFd) {
    let notes = record::secrets("dbx_1", generation).unwrap();
    leave(store, Kind::Secrets, Parts { pages: generation.strings(), notes: &notes }, until)
}

fn leave_identity(store: &Store, home: &str) -> (String, OwnedFd) {
    leave_one_identity(store, home, &identity())
}

fn leave_one_identity(store: &Store, home: &str, identity: &Identity) -> (String, OwnedFd) {
    let notes = record::identity(home, identity).unwrap();
    leave(store, Kind::Identity, Parts { pages: &[], notes: &notes }, in_a_minute())
}

fn successor(store: &mut Store, left: Vec<(String, OwnedFd)>) -> Kept {
    let mut kept = Kept::default();
    for (name, descriptor) in left {
        if store.take_over(&name, descriptor, &mut kept).is_err() {
            store.drop_named(&name);
        }
    }
    let credentials =
        kept.identity.clone().map_or_else(|| InitialIdentity::Token(token()), InitialIdentity::Ready);
    store.keep_only(&mut kept, &credentials);
    kept
}

#[test]
fn the_newer_of_two_images_is_taken_over_in_either_order() {
    let memory = &memories()[0];
    let Some(mut store) = store(memory) else { return };
    for newest_first in [false, true] {
        let secrets = [1, 2].map(|revision| {
            let generation = SealedBundle::new(revision, &[("A", b"one")]).open(memory).unwrap();
            leave_secrets(&store, &generation, in_a_minute())
        });
        let names: Vec<String> = secrets.iter().map(|(name, _)| name.clone()).collect();
        let mut left = Vec::from(secrets);
        if newest_first {
            left.reverse();
        }
        left.push(leave_identity(&store, &here()));
        let kept = successor(&mut store, left);
        assert_eq!(kept.secrets.unwrap().generation.revision(), 2);
        assert_eq!(store.secrets.as_ref().unwrap().name(), names[1]);
        let key = |name: &str| store.keyring.as_ref().unwrap().find(&parse_name(name).unwrap().1);
        assert!(key(&names[0]).is_err() && key(&names[1]).is_ok(), "the older one's key is gone");
    }
}

#[test]
fn the_identity_that_is_valid_for_longer_is_taken_over() {
    let memory = &memories()[0];
    let Some(mut store) = store(memory) else { return };
    for newest_first in [false, true] {
        let identities = [2050, 2060].map(identity_until);
        let mut left: Vec<_> =
            identities.iter().map(|identity| leave_one_identity(&store, &here(), identity)).collect();
        if newest_first {
            left.reverse();
        }
        let kept = successor(&mut store, left).identity.unwrap();
        assert_eq!(kept.validity().not_after_ms, identities[1].validity().not_after_ms);
    }
}

fn generation(memory: &SecretMemory) -> Generation {
    SealedBundle::new(7, &[("B", b"two"), ("A", b"one"), ("EMPTY", b"")]).open(memory).unwrap()
}

fn home(server: &str, machine: &str) -> String {
    format!("{} {machine}", server.parse::<ServerUrl>().unwrap())
}

fn here() -> String {
    home(SERVER, &machine::id().unwrap_or_default())
}

#[test]
fn a_successor_has_identity_secrets_and_lease() {
    for memory in memories() {
        let Some(mut store) = store(&memory) else { return };
        let before = generation(&memory);
        let lease = in_a_minute();
        let left = vec![leave_identity(&store, &here()), leave_secrets(&store, &before, lease)];
        let kept = successor(&mut store, left);
        let identity = kept.identity.unwrap();
        assert!(identity.devbox_id() == "dbx_1" && identity.tried_tokens().has(&token()));
        let secrets = kept.secrets.unwrap();
        assert_eq!((secrets.devbox.as_str(), secrets.lease.as_millis()), ("dbx_1", lease.as_millis()));
        assert_eq!((secrets.generation.strings(), secrets.generation.revision()), (before.strings(), 7));
        assert!(secrets.generation.variables().eq(before.variables()));
        assert_eq!(store.view().now(), Stored { identity: true, secrets_revision: Some(7) });
        store.forget_secrets();
        assert_eq!(store.view().now(), Stored { identity: true, secrets_revision: None });
        store.forget_everything();
        assert_eq!(store.view().now(), Stored::default());
    }
}

#[test]
fn an_expired_image_or_one_without_its_key_is_not_taken_over() {
    let memory = &memories()[0];
    let Some(mut store) = store(memory) else { return };
    let over = leave_secrets(&store, &generation(memory), BootTime::now());
    let revoked = leave_secrets(&store, &generation(memory), in_a_minute());
    store.keyring.as_ref().unwrap().forget(&parse_name(&revoked.0).unwrap().1);
    for left in [over, revoked] {
        let identity = leave_identity(&store, &here());
        let kept = successor(&mut store, vec![identity, left]);
        assert!(kept.identity.is_some() && kept.secrets.is_none());
    }
}

#[test]
fn secrets_without_their_identity_are_dropped_and_so_is_another_servers_or_machines() {
    let memory = &memories()[0];
    let Some(mut store) = store(memory) else { return };
    for foreign in
        [home("https://other.example:1", &machine::id().unwrap_or_default()), home(SERVER, "copied")]
    {
        let foreign = leave_identity(&store, &foreign);
        let secrets = leave_secrets(&store, &generation(memory), in_a_minute());
        let kept = successor(&mut store, vec![foreign, secrets]);
        assert!(kept.identity.is_none() && kept.secrets.is_none());
    }
}

#[test]
fn a_stored_descriptor_shows_no_plaintext() {
    for memory in memories() {
        let Some(store) = store(&memory) else { return };
        let secret = SealedBundle::new(1, &[("DB_PASS", b"hunter2hunter2")]).open(&memory).unwrap();
        let (_, descriptor) = leave_secrets(&store, &secret, in_a_minute());
        let bytes = memfd::read(&memory, descriptor).unwrap();
        assert!(bytes.starts_with(b"DSI1"));
        for plaintext in [&b"hunter2"[..], b"DB_PASS", b"dbx_1"] {
            assert!(!bytes.windows(plaintext.len()).any(|window| window == plaintext));
        }
    }
}

#[test]
fn strange_names_and_descriptors_are_dropped() {
    let memory = &memories()[0];
    let Some(mut store) = store(memory) else { return };
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let id = ImageId::generate().unwrap();
    let names = ["secrets.", "secrets.xyz", "stored", &format!("secrets.{id}"), &format!("identity.{id}")];
    store.keyring.as_ref().unwrap().put(&id, &ImageKey::generate().unwrap(), in_a_minute()).unwrap();
    let left = names.map(|name| (name.to_owned(), null())).into();
    let kept = successor(&mut store, left);
    assert!(kept.identity.is_none() && kept.secrets.is_none());
}
