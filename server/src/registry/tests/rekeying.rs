//! New keys for accounts, while all other work continues.

use super::*;
use crate::crypto::ValueLocation;
use crate::store::sqlite::SqliteStore;
use crate::store::{Accounts as _, Secrets as _};

/// Every value of the account, opened with its current key alone.
async fn values(world: &World, caller: &Caller) -> Vec<String> {
    let store = SqliteStore::open(&world.state).await.unwrap();
    let account = store.account(caller.account()).await.unwrap().unwrap();
    let key = world.registry.key_of(&account.id, &account.wrapped_key).unwrap();
    let secrets = store.sealed_secrets(&account.id, "", 1000).await.unwrap();
    let open = |secret: crate::store::SealedSecret| {
        let at = ValueLocation { secret: &secret.secret.id, version: secret.secret.version };
        let value = key.open(at, secret.sealed).unwrap();
        String::from_utf8(value.expose_secret().to_vec()).unwrap()
    };
    secrets.into_iter().map(open).collect()
}

#[tokio::test]
async fn after_a_rekey_the_old_account_key_opens_nothing_that_is_stored() {
    let (world, caller) = World::with_account().await;
    for number in 0..40 {
        world.secret(&caller, &format!("KEY{number:02}"), &format!("value {number}")).await;
    }
    let store = SqliteStore::open(&world.state).await.unwrap();
    let wrapped = store.account(caller.account()).await.unwrap().unwrap().wrapped_key;
    let stolen = world.registry.key_of(caller.account(), &wrapped).unwrap();
    assert_eq!(world.registry.rekey_all(&Actor::Server).await.unwrap(), (1, 40));
    assert_eq!(world.newest().await, ("keys.rekey".to_owned(), "done".to_owned(), "40 values".to_owned()));
    for secret in store.sealed_secrets(caller.account(), "", 1000).await.unwrap() {
        let at = ValueLocation { secret: &secret.secret.id, version: secret.secret.version };
        assert!(stolen.open(at, secret.sealed).is_err());
    }
    assert_eq!(values(&world, &caller).await[7], "value 7");
    // A caller from before the rekey writes under the new key.
    world.registry.update_secret(&caller, SecretSelector::Name("KEY07"), bytes("new")).await.unwrap();
    world.secret(&caller, "LATER", "later").await;
    assert_eq!(values(&world, &caller).await.len(), 41);
}

#[tokio::test]
async fn an_interrupted_rekey_serves_every_value_and_continues_when_run_again() {
    let (world, caller) = World::with_account().await;
    for number in 0..40 {
        world.secret(&caller, &format!("KEY{number:02}"), "value").await;
    }
    let (_, peer) = world.joined(&caller, &[]).await;
    assert!(world.registry.begin_rekey(caller.account()).await.unwrap());
    assert!(!world.registry.begin_rekey(caller.account()).await.unwrap());
    assert!(world.registry.reseal_page(caller.account(), "").await.unwrap().is_some());
    // Killed here: values of both keys are there.
    let again = open(&world.state).await.unwrap();
    again.update_secret(&caller, SecretSelector::Name("KEY39"), bytes("between")).await.unwrap();
    assert_eq!(super::bundles::Daemon::new(peer).fetch(&again).await.1.len(), 40);
    assert_eq!(again.rekey_all(&Actor::Server).await.unwrap().0, 1);
    assert_eq!(values(&world, &caller).await.len(), 40);
    assert_eq!(values(&world, &caller).await[39], "between");
}

#[tokio::test]
async fn writers_beside_a_rekey_leave_nothing_under_the_old_key() {
    let (world, caller) = World::with_account().await;
    for number in 0..64 {
        world.secret(&caller, &format!("KEY{number:02}"), "value").await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..4 {
        let registry = world.registry.clone();
        let caller = caller.clone();
        writers.spawn(async move {
            for round in 0..30 {
                let name = format!("KEY{:02}", (round * 7 + number * 16) % 64);
                let value = bytes("written meanwhile");
                registry.update_secret(&caller, SecretSelector::Name(&name), value).await.unwrap();
                let name = format!("A{number}_{round}");
                registry.create_secret(&caller, &name, bytes("new")).await.unwrap();
            }
        });
    }
    for _ in 0..3 {
        world.registry.rekey_all(&Actor::Server).await.unwrap();
    }
    writers.join_all().await;
    assert_eq!(values(&world, &caller).await.len(), 64 + 4 * 30);
}

#[tokio::test]
async fn a_rekey_voids_join_tokens_that_a_holder_of_the_old_key_could_compute() {
    let (world, caller, devbox, token) = World::with_devbox().await;
    world.registry.rekey_all(&Actor::Server).await.unwrap();
    assert_eq!(refusal(world.enrol(&token).await).1, "expired_join_token");
    let fresh = world.registry.new_join_token(&caller, devbox.id.as_str()).await.unwrap();
    world.enrol(&fresh).await.unwrap();
}

#[tokio::test]
async fn a_registration_that_a_rekey_overtakes_makes_its_join_token_from_the_new_key() {
    let (world, before) = World::with_account().await;
    let stolen = world.registry.account_key(&before).await.unwrap();
    // `before` was authenticated before the re-key, and its requests are carried out after it.
    world.registry.rekey_all(&Actor::Server).await.unwrap();
    let (devbox, token) = world.devbox(&before, &[]).await;
    let forged = stolen.join_secret(&devbox.id).into_secret();
    let forged = JoinToken::new(devbox.id.as_str(), forged, *world.registry.ca().fingerprint()).unwrap();
    assert_eq!(refusal(world.enrol(&forged).await).1, "unknown_join_token");
    world.enrol(&token).await.unwrap();
    let later = world.registry.new_join_token(&before, devbox.id.as_str()).await.unwrap();
    world.enrol(&later).await.unwrap();
}
