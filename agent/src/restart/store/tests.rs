//! Images left by one daemon and taken over by another, with a real keyring and real locked memory. The service manager in
//! between is in the tests under a real systemd.

use std::time::Duration;

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::memory::test_support::{SealedBundle, memories};
use crate::needs::skipped;
use crate::restart::Waiting;

const SERVER: &str = "https://control.example:8443";

fn store(memory: &SecretMemory) -> Option<Store> {
    let (mut store, _) = Store::open(memory, &SERVER.parse().unwrap(), Vec::new());
    store.keyring = Some(Keyring::open().map_err(|error| skipped(&format!("a keyring: {error}"))).ok()?);
    Some(store)
}

fn identity() -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![SanType::URI("spiffe://test/devbox/dbx_1".try_into().unwrap())];
    let certificate = parameters.self_signed(&key).unwrap().pem();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Identity::new(certificate.as_bytes(), der, certificate.as_bytes()).unwrap()
}

fn in_a_minute() -> BootTime {
    BootTime::now() + Duration::from_secs(60)
}

/// What the service manager would pass to a successor.
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
    let notes = record::identity(home, &identity()).unwrap();
    leave(store, Kind::Identity, Parts { pages: &[], notes: &notes }, in_a_minute())
}

fn successor(store: &mut Store, left: Vec<(String, OwnedFd)>) -> Kept {
    let mut kept = Kept::default();
    for (name, descriptor) in left {
        if store.take_over(&name, descriptor, &mut kept).is_err() {
            store.drop_named(&name);
        }
    }
    let token = || {
        let secret = SecretBytes::new(b"secret".to_vec());
        Credentials::Token(JoinToken::new("dbx_1", secret, [0; 32]).unwrap())
    };
    let credentials = kept.identity.clone().map_or_else(token, Credentials::Ready);
    store.keep_only(&mut kept, &credentials);
    kept
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
        assert_eq!(kept.identity.unwrap().devbox_id(), "dbx_1");
        let secrets = kept.secrets.unwrap();
        assert_eq!((secrets.devbox.as_str(), secrets.lease.as_millis()), ("dbx_1", lease.as_millis()));
        assert_eq!((secrets.generation.strings(), secrets.generation.revision()), (before.strings(), 7));
        assert!(secrets.generation.variables().eq(before.variables()));
        assert_eq!(store.room().look(), Waiting { identity: true, secrets: Some(7) });
        store.forget_secrets();
        assert_eq!(store.room().look(), Waiting { identity: true, secrets: None });
        store.forget_everything();
        assert_eq!(store.room().look(), Waiting::default());
    }
}

#[test]
fn nothing_is_taken_over_past_its_lease_or_without_its_key() {
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
        let bytes = medium::read(&memory, descriptor).unwrap();
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
