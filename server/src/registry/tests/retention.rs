use super::*;
use crate::clock::now_ms;
use crate::config::RetentionConfig;
use crate::store::AuditPage;

/// A retention so long that no row of a test has expired.
fn keep() -> RetentionConfig {
    RetentionConfig::default()
}

/// Keeps nothing that has ended by now.
fn keep_nothing() -> RetentionConfig {
    let none = Duration::ZERO;
    RetentionConfig { audit: Some(none), certificates: none, join_tokens: none, devboxes: none }
}

#[tokio::test]
async fn rows_in_use_outlive_every_retention() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "KEY", "value").await;
    let (devbox, peer) = world.joined(&caller, &[]).await;
    let (_, pending) = world.devbox(&caller, &[]).await;
    world.registry.prune(&keep_nothing()).await.unwrap();
    assert!(world.registry.devbox(&caller, devbox.id.as_str()).await.is_ok());
    assert!(world.registry.renew(&peer, &csr(devbox.id.as_str())).await.is_ok());
    assert!(world.enrol(&pending).await.is_ok());
}

#[tokio::test]
async fn a_devbox_that_was_shut_down_is_deleted_with_all_that_is_its_own_after_its_time() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "KEY", "value").await;
    let (devbox, peer) = world.joined(&caller, &[("A", "KEY")]).await;
    world.registry.shutdown_devbox(&caller, devbox.id.as_str()).await.unwrap();
    world.registry.prune(&keep()).await.unwrap();
    assert!(world.registry.devbox(&caller, devbox.id.as_str()).await.is_ok(), "its time is not over");
    let ended_at = now_ms();
    while now_ms() <= ended_at {
        tokio::task::yield_now().await;
    }
    world.registry.prune(&keep_nothing()).await.unwrap();
    let gone = world.registry.devbox(&caller, devbox.id.as_str()).await.unwrap_err();
    assert_eq!(gone.kind(), RefusalKind::NotFound);
    let refused = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap_err();
    assert_eq!(refused.kind(), RefusalKind::Forbidden, "its certificate opens nothing");
    let (action, _, facts) = world.newest().await;
    assert!(["state.prune", "audit.prune", "devbox.renew"].contains(&action.as_str()), "{action} {facts}");
}

#[tokio::test]
async fn a_devbox_whose_join_token_was_deleted_long_after_its_use_gets_a_new_one() {
    let (world, caller, devbox, _) = World::with_joined().await;
    // As if the token's time had passed: retention checks the expiry too.
    let database =
        sqlx::SqlitePool::connect(&format!("sqlite:{}", world.state.database().display())).await.unwrap();
    let ended =
        sqlx::query("UPDATE join_tokens SET expire_time_ms = 0, use_time_ms = 0").execute(&database).await;
    assert_eq!(ended.unwrap().rows_affected(), 1);
    world.registry.prune(&keep_nothing()).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM join_tokens").fetch_one(&database).await.unwrap();
    assert_eq!(left, 0);
    let token = world.registry.new_join_token(&caller, devbox.id.as_str()).await.unwrap();
    world.enrol(&token).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_was_ended_early_is_remembered_for_its_longest_life() {
    let (world, caller, devbox, peer) = World::with_joined().await;
    let token = world.registry.new_join_token(&caller, devbox.id.as_str()).await.unwrap();
    world.enrol(&token).await.unwrap();
    let before = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap_err();
    world.registry.prune(&keep_nothing()).await.unwrap();
    let after = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap_err();
    assert_eq!(before.code(), after.code());
}

#[tokio::test]
async fn old_rows_of_the_audit_go_and_the_newest_stay() {
    let (world, _) = World::with_account().await;
    world.registry.prune(&keep()).await.unwrap();
    let all = world.registry.audit(None, 100).await.unwrap();
    assert!(all.iter().all(|row| row.action != "audit.prune"), "a day later at the earliest");
    let newest = all[0].sequence;
    assert_eq!(world.registry.prune_audit(&Actor::Server, newest).await.unwrap(), 1);
    let left = world.registry.audit_page(None, AuditPage::OldestAfter(0), 100).await.unwrap();
    assert_eq!((left[0].sequence, left[1].action.as_str()), (newest, "audit.prune"));
    let refused = world.registry.prune_audit(&Actor::Server, newest + 50).await.unwrap_err();
    assert_eq!(refused.kind(), RefusalKind::Invalid);
}
