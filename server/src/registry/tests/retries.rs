use super::*;
use crate::clock::now_ms;
use crate::store::RECEIPT_LIFETIME_MS;

/// `caller` with the id `id` for a request whose body is `body`.
fn with_id(caller: &Caller, id: &str, body: &str) -> Caller {
    caller.retrying(Retry::new(id.to_owned(), "POST", "/v1/secrets", body.as_bytes()))
}

async fn rows(world: &World, action: &str) -> Vec<String> {
    let all = world.registry.audit(None, 1000).await.unwrap();
    all.into_iter().filter(|row| row.action == action).map(|row| row.outcome).collect()
}

#[tokio::test]
async fn a_retried_write_is_done_once_and_answered_alike_also_after_a_restart() {
    let (world, caller) = World::with_account().await;
    let by_name = SecretSelector::Name("KEY");
    let create = with_id(&caller, "create", "");
    let created = world.secret(&create, "KEY", "one").await;
    assert_eq!(world.secret(&create, "KEY", "one").await, created);

    let update = with_id(&caller, "update", "");
    let updated = world.registry.update_secret(&update, by_name, bytes("two")).await.unwrap();
    let restarted = open(&world.state).await.unwrap();
    assert_eq!(restarted.update_secret(&update, by_name, bytes("two")).await.unwrap(), updated);
    let row = restarted.store().secret(caller.account(), by_name).await.unwrap().unwrap();
    assert_eq!(row.secret.version, 2);

    let delete = with_id(&caller, "delete", "");
    let deleted = world.registry.delete_secret(&delete, by_name).await.unwrap();
    assert_eq!(restarted.delete_secret(&delete, by_name).await.unwrap(), deleted);
    for action in ["secret.create", "secret.update", "secret.delete"] {
        assert_eq!(rows(&world, action).await, ["replayed", "done"], "{action}");
    }
}

#[tokio::test]
async fn a_retried_registration_returns_the_same_devbox_and_join_token() {
    let world = World::new().await;
    let caller = with_id(&world.caller("acme").await, "register", "");
    let (first, token) = world.devbox(&caller, &[]).await;
    let (second, same) = world.devbox(&caller, &[]).await;
    assert_eq!(first, second);
    assert_eq!(*token.expose_token(), *same.expose_token());
    assert!(world.enrol(&same).await.is_ok());
    assert_eq!(refusal(world.enrol(&token).await).1, "used_join_token", "one token, one use");
    let (other, other_token) = world.devbox(&with_id(&caller, "another", ""), &[]).await;
    assert_ne!((other.id, other_token.expose_token()), (first.id, token.expose_token()));
}

#[tokio::test]
async fn a_retried_shutdown_is_answered_alike() {
    let (world, caller, devbox, _) = World::with_devbox().await;
    let shutdown = with_id(&caller, "shutdown", "");
    let ended = world.registry.shutdown_devbox(&shutdown, devbox.id.as_str()).await.unwrap();
    assert_eq!(world.registry.shutdown_devbox(&shutdown, devbox.id.as_str()).await.unwrap(), ended);
    assert_eq!(rows(&world, "devbox.shutdown").await, ["replayed", "done"]);
}

#[tokio::test]
async fn an_id_that_belongs_to_another_request_is_refused_and_nothing_is_written() {
    let (world, caller) = World::with_account().await;
    world.secret(&with_id(&caller, "one", "first body"), "FIRST", "v").await;
    let reused = with_id(&caller, "one", "second body");
    let refused = world.registry.create_secret(&reused, "SECOND", bytes("v")).await;
    assert_eq!(refusal(refused), (RefusalKind::Invalid, "request_id_reused"));
    let refused = world.registry.delete_secret(&reused, SecretSelector::Name("FIRST")).await;
    assert_eq!(refusal(refused), (RefusalKind::Invalid, "request_id_reused"));
    assert_eq!(world.registry.list_secrets(&caller, 10, None).await.unwrap().total_count, 1);
}

#[tokio::test]
async fn ids_are_an_accounts_own() {
    let (world, acme) = World::with_account().await;
    let other = world.caller("other").await;
    let first = world.secret(&with_id(&acme, "same", ""), "KEY", "v").await;
    let second = world.secret(&with_id(&other, "same", ""), "KEY", "v").await;
    assert_ne!(first.id, second.id);
}

#[tokio::test]
async fn a_refused_request_is_judged_anew() {
    let (world, caller) = World::with_account().await;
    let update = with_id(&caller, "update", "");
    let missing = world.registry.update_secret(&update, SecretSelector::Name("KEY"), bytes("v")).await;
    assert_eq!(refusal(missing).0, RefusalKind::NotFound);
    world.secret(&caller, "KEY", "v").await;
    assert!(world.registry.update_secret(&update, SecretSelector::Name("KEY"), bytes("v")).await.is_ok());
}

#[tokio::test]
async fn of_the_same_request_many_times_at_once_one_writes_and_all_are_answered_alike() {
    let (world, caller) = World::with_account().await;
    for (id, delete) in [("create", false), ("delete", true)] {
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let registry = world.registry.clone();
            let caller = with_id(&caller, id, "");
            tries.spawn(async move {
                match delete {
                    false => registry.create_secret(&caller, "KEY", bytes("v")).await,
                    true => registry.delete_secret(&caller, SecretSelector::Name("KEY")).await,
                }
            });
        }
        let answers: Vec<_> = tries.join_all().await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{id}");
    }
    assert_eq!(rows(&world, "secret.create").await.iter().filter(|outcome| *outcome == "done").count(), 1);
    assert_eq!(rows(&world, "secret.delete").await.iter().filter(|outcome| *outcome == "done").count(), 1);
}

#[tokio::test]
async fn an_account_without_the_capability_gets_no_old_answer() {
    let world = World::new().await;
    let caller = with_id(&world.caller("acme").await, "create", "");
    world.secret(&caller, "KEY", "v").await;
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    let token = world.token("acme").await;
    let barred = with_id(&world.registry.authenticate(&token, None).await.unwrap(), "create", "");
    let refused = world.registry.create_secret(&barred, "KEY", bytes("v")).await;
    assert_eq!(refusal(refused).1, "no_devbox_capability");
}

#[tokio::test]
async fn a_receipt_lives_a_day_and_then_leaves_the_database() {
    let (world, caller) = World::with_account().await;
    world.secret(&with_id(&caller, "old", ""), "KEY", "v").await;
    let store = world.registry.store();
    let now = now_ms();
    let account = caller.account();
    assert!(store.receipt(account, "old", now).await.unwrap().is_some());
    assert!(store.receipt(account, "old", now + RECEIPT_LIFETIME_MS).await.unwrap().is_none());
    let later = crate::store::AuditRecord {
        time_ms: now + RECEIPT_LIFETIME_MS + 1,
        ..caller.done(crate::store::Action::SecretDelete, "")
    };
    let new = with_id(&caller, "new", "");
    let request = world.registry.request_key(&new).await.unwrap();
    let secret = world.registry.secret(&caller, SecretSelector::Name("KEY")).await.unwrap();
    store.delete_secret(account, &secret.id, &later, request.as_ref()).await.unwrap().unwrap();
    assert!(store.receipt(account, "old", now).await.unwrap().is_none(), "pruned");
}

#[tokio::test]
async fn a_retried_join_token_is_the_same_and_the_next_one_another() {
    let (world, caller, devbox, first) = World::with_devbox().await;
    let id = devbox.id.as_str();
    let token =
        async |caller: &Caller| world.registry.new_join_token(caller, id).await.unwrap().expose_token();
    let retried = with_id(&caller, "token", "");
    let second = token(&retried).await;
    assert_eq!(*token(&retried).await, *second);
    assert_eq!(rows(&world, "devbox.join_token").await, ["replayed", "done"]);
    assert_ne!(*second, *first.expose_token());
    assert_eq!(refusal(world.enrol(&first).await).1, "unknown_join_token", "the first is void");
    let third = token(&caller).await;
    assert_ne!(*third, *second);
    assert!(world.registry.enroll(&bytes(&third), &csr(id), None).await.is_ok());
}
