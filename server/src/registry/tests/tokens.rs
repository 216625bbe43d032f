use std::time::{Duration, Instant};

use super::*;
use crate::clock::now_ms;

#[tokio::test]
async fn a_token_identifies_its_account() {
    let (world, caller) = World::with_account().await;
    let account = world.registry.account("acme").await.unwrap();
    assert_eq!(caller.account(), &account.id);
    assert!(caller.token_id().is_some());
}

#[tokio::test]
async fn unknown_and_malformed_tokens_are_refused() {
    let world = World::new().await;
    let unknown = ApiToken::generate().unwrap();
    let unknown = world.registry.authenticate(&bytes(unknown.expose_token()), None).await;
    assert_eq!(refusal(unknown), (RefusalKind::Unauthenticated, "unknown_token"));
    for text in ["", "dbs_", "x", &"a".repeat(10_000)] {
        let malformed = world.registry.authenticate(&bytes(text), None).await;
        assert_eq!(refusal(malformed), (RefusalKind::Unauthenticated, "invalid_token"), "{text}");
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_audited() {
    let (world, caller) = World::with_account().await;
    let token = world.token("acme").await;
    let tokens = world.registry.list_tokens("acme").await.unwrap();
    for view in &tokens {
        world.registry.revoke_token(&Actor::Server, "acme", view.id.as_str()).await.unwrap();
    }
    assert_eq!(tokens.len(), 2);
    let refused = world.registry.authenticate(&token, None).await;
    world.audited_refusal(refused, "token.use", RefusalKind::Unauthenticated, "revoked_token").await;
    assert!(caller.check_devbox_capability().is_ok());
}

#[tokio::test]
async fn an_expired_token_is_refused_and_audited() {
    let (world, _) = World::with_account().await;
    let create = async |expires| {
        let created = world
            .registry
            .create_token(&Actor::Server, "acme", "t", Some(expires), Scopes::default())
            .await
            .unwrap();
        bytes(created.1.expose_token())
    };
    let over = create(now_ms()).await;
    let lasting = create(now_ms() + 60_000).await;
    assert!(world.registry.authenticate(&lasting, None).await.is_ok());
    let refused = world.registry.authenticate(&over, None).await;
    world.audited_refusal(refused, "token.use", RefusalKind::Unauthenticated, "expired_token").await;
}

#[tokio::test]
async fn a_token_of_another_account_cannot_be_revoked() {
    let (world, _) = World::with_account().await;
    world.caller("other").await;
    let id = world.registry.list_tokens("acme").await.unwrap().remove(0).id;
    let refused = world.registry.revoke_token(&Actor::Server, "other", id.as_str()).await;
    assert_eq!(refusal(refused).0, RefusalKind::NotFound);
}

#[tokio::test]
async fn accounts_have_printable_names_of_their_own() {
    let (world, _) = World::with_account().await;
    let again = world.registry.create_account(&Actor::Server, "acme", true).await;
    assert_eq!(refusal(again), (RefusalKind::Invalid, "name_taken"));
    for name in ["", "a\nb", &"n".repeat(256)] {
        let bad = world.registry.create_account(&Actor::Server, name, true).await;
        assert_eq!(refusal(bad), (RefusalKind::Invalid, "invalid_text"), "{name:?}");
    }
    assert_eq!(refusal(world.registry.account("nobody").await).0, RefusalKind::NotFound);
}

#[tokio::test]
async fn without_the_devbox_capability_everything_is_forbidden_and_audited() {
    let (world, _) = World::with_account().await;
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    let caller = world.registry.authenticate(&world.token("acme").await, None).await.unwrap();
    let registry = &world.registry;
    let key = SecretSelector::Name("KEY");
    let refusals = [
        refusal(registry.create_secret(&caller, "KEY", bytes("v")).await),
        refusal(registry.update_secret(&caller, key, bytes("v")).await),
        refusal(registry.secret(&caller, key).await),
        refusal(registry.delete_secret(&caller, key).await),
        refusal(registry.list_secrets(&caller, 1, None).await),
        refusal(registry.create_devbox(&caller, NewDevbox::default()).await),
        refusal(registry.devbox(&caller, "dbx_1").await),
        refusal(registry.list_devboxes(&caller, &DevboxQuery::first(1)).await),
        refusal(registry.shutdown_devbox(&caller, "dbx_1").await),
    ];
    assert_eq!(refusals, [(RefusalKind::Forbidden, "no_devbox_capability"); 9]);
    let audit = registry.audit(Some(caller.account()), 9).await.unwrap();
    assert!(audit.iter().all(|entry| entry.outcome == "refused"));
}

#[tokio::test]
async fn a_token_made_just_now_is_expected_and_a_revoked_one_is_not_for_long() {
    let (world, _) = World::with_account().await;
    let registry = &world.registry;
    let guess = bytes(ApiToken::generate().unwrap().expose_token());
    assert!(!registry.expects_api_token(&guess).await);
    let (view, first) =
        registry.create_token(&Actor::Server, "acme", "t", None, Scopes::default()).await.unwrap();
    let first = bytes(first.expose_token());
    let second = world.token("acme").await;
    assert!(registry.expects_api_token(&first).await && registry.expects_api_token(&second).await);
    registry.revoke_token(&Actor::Server, "acme", view.id.as_str()).await.unwrap();
    // The only one that asks: no guess makes the registry read again.
    let deadline = Instant::now() + Duration::from_secs(60);
    while registry.expects_api_token(&first).await {
        assert!(Instant::now() < deadline, "a revoked token is expected for ever");
    }
    assert!(registry.expects_api_token(&second).await);
}

#[tokio::test]
async fn a_join_token_is_expected_for_its_own_devbox_only_and_until_it_is_used() {
    let world = World::new().await;
    let caller = world.caller("acme").await;
    let (_, token) = world.devbox(&caller, &[]).await;
    let (other, _) = world.devbox(&caller, &[]).await;
    let secret = SecretBytes::new(token.secret().expose_secret().to_vec());
    let elsewhere = JoinToken::new(other.id.as_str(), secret, *token.ca_fingerprint()).unwrap();
    let registry = &world.registry;
    assert!(registry.expects_join_token(&bytes(&token.expose_token())).await);
    assert!(!registry.expects_join_token(&bytes(&elsewhere.expose_token())).await);
    world.enrol(&token).await.unwrap();
    assert!(!registry.expects_join_token(&bytes(&elsewhere.expose_token())).await, "which reads again");
    assert!(!registry.expects_join_token(&bytes(&token.expose_token())).await);
}
