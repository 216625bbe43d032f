use std::fs;

use super::*;
use crate::crypto::MasterKey;
use crate::store::StoreError;

#[tokio::test]
async fn a_state_opened_again_has_the_same_ca_and_values() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "KEY", "value").await;
    let again = open(&world.state).await.unwrap();
    assert_eq!(again.ca().fingerprint(), world.registry.ca().fingerprint());
    assert_eq!(again.list_secrets(&caller, 10, None).await.unwrap().total_count, 1);
}

#[tokio::test]
async fn another_master_key_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let other = MasterKey::create(&world.directory.path().join("other.key")).unwrap();
    let refused = Registry::open(&world.state, other, Settings::default(), Access::Shared).await.unwrap_err();
    assert!(matches!(refused, OpenError::OtherMasterKey { .. }), "{refused:?}");
    assert!(open(&world.state).await.is_ok());
}

#[tokio::test]
async fn a_state_whose_master_key_is_lost_gets_no_new_one() {
    let world = World::new().await;
    fs::remove_file(world.state.master_key()).unwrap();
    let refused = open(&world.state).await.unwrap_err();
    assert!(matches!(refused, OpenError::LostMasterKey { .. }), "{refused:?}");
    assert!(!world.state.master_key().exists());
}

#[tokio::test]
async fn programs_that_open_a_state_at_once_agree_on_one_ca() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(directory.path()).unwrap();
    set_up(&state).await.unwrap();
    let starts = (0..4).map(|_| {
        let state = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { *open(&state).await.unwrap().ca().fingerprint() })
        })
    });
    let starts: Vec<_> = starts.collect();
    let fingerprints: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]));
}

#[tokio::test]
async fn a_program_beside_a_server_sets_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(directory.path()).unwrap();
    MasterKey::create(&state.master_key()).unwrap();
    open(&state).await.unwrap_err();
    assert!(!state.has_database());
    // An interrupted `init` may leave an empty file behind.
    state.touch_database().unwrap();
    let refused = open(&state).await.unwrap_err();
    assert!(matches!(refused, OpenError::Store { source: StoreError::Empty, .. }), "{refused:?}");
    set_up(&state).await.unwrap();
    open(&state).await.unwrap();
}

#[tokio::test]
async fn the_listeners_certificate_is_signed_by_the_ca_for_its_names() {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let world = World::new().await;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = world.registry.ca().issue_server(&names, std::time::Duration::from_secs(60)).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let (_, ca) = X509Certificate::from_der(&issued.chain[1]).unwrap();
    assert_eq!(leaf.issuer(), ca.subject());
    assert!(ca.is_ca() && !leaf.is_ca());
    let alternative = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(alternative.value.general_names.len(), 2);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
}

#[tokio::test]
async fn the_development_account_stays_and_its_token_is_new() {
    let world = World::new().await;
    let first = world.registry.development_account().await.unwrap();
    let second = open(&world.state).await.unwrap().development_account().await.unwrap();
    assert_eq!(first.account, second.account);
    assert_ne!(first.token.expose_token(), second.token.expose_token());
    let third = open(&world.state).await.unwrap().development_account().await.unwrap();
    let refused = world.registry.authenticate(&bytes(first.token.expose_token()), None).await;
    assert!(refused.is_err(), "the last one but one is revoked");
    for token in [second.token, third.token] {
        let caller = world.registry.authenticate(&bytes(token.expose_token()), None).await.unwrap();
        assert_eq!(caller.account(), &first.account.id);
    }
}
