use super::*;
use crate::store::GatewayBinding;

fn bound(env: &str, secret: &str) -> NewDevbox {
    let secrets = Some(BTreeMap::from([(env.to_owned(), secret.to_owned())]));
    NewDevbox { secrets, ..NewDevbox::default() }
}

#[tokio::test]
async fn a_binding_names_a_secret_by_name_or_id() {
    let (world, caller) = World::with_account().await;
    let secret = world.secret(&caller, "DATABASE_PASSWORD", "v").await;
    for named in ["DATABASE_PASSWORD", secret.id.as_str()] {
        let (devbox, _) = world.devbox(&caller, &[("DB_PASS", named)]).await;
        assert_eq!(devbox.secrets, Some(BTreeMap::from([("DB_PASS".to_owned(), secret.id.clone())])));
    }
    let (every, _) = world.devbox(&caller, &[]).await;
    assert_eq!(every.secrets, None);
}

#[tokio::test]
async fn a_secret_whose_name_looks_like_an_id_can_be_bound() {
    let (world, caller) = World::with_account().await;
    let secret = world.secret(&caller, "sec_ret", "v").await;
    let (devbox, _) = world.devbox(&caller, &[("KEY", "sec_ret")]).await;
    assert_eq!(devbox.secrets.unwrap()["KEY"], secret.id);
}

#[tokio::test]
async fn a_bad_binding_is_refused_by_its_environment_name_and_repeats_no_value() {
    let world = World::new().await;
    let (caller, other) = (world.caller("acme").await, world.caller("other").await);
    let theirs = world.secret(&other, "THEIRS", "v").await;
    for unknown in ["hunter2", "THEIRS", theirs.id.as_str()] {
        let refused = world.registry.create_devbox(&caller, bound("ENV", unknown)).await.unwrap_err();
        assert_eq!((refused.kind(), refused.code()), (RefusalKind::Invalid, "unknown_secret"));
        assert!(!refused.message().contains(unknown) && refused.message().contains("ENV"), "{refused}");
    }
    let refused = world.registry.create_devbox(&caller, bound("9hunter2", "NOPE")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (RefusalKind::Invalid, "invalid_binding"));
    assert!(!refused.message().contains("9hunter2"), "{refused}");
}

#[tokio::test]
async fn a_devboxs_name_and_metadata_are_bounded() {
    let (world, caller) = World::with_account().await;
    let refused = async |new| refusal(world.registry.create_devbox(&caller, new).await).1;
    let name = Some("a\u{1b}b".to_owned());
    assert_eq!(refused(NewDevbox { name, ..NewDevbox::default() }).await, "invalid_text");
    let metadata = BTreeMap::from([("k".to_owned(), "v".repeat(20_000))]);
    assert_eq!(refused(NewDevbox { metadata, ..NewDevbox::default() }).await, "budget_metadata_bytes");
    let binding = GatewayBinding { gateway: "anthropic".to_owned(), secret: "KEY".to_owned() };
    let gateways = BTreeMap::from([("GW".to_owned(), binding)]);
    assert_eq!(refused(NewDevbox { gateways, ..NewDevbox::default() }).await, "unsupported_gateways");
}

#[tokio::test]
async fn devboxes_of_another_account_are_not_found() {
    let world = World::new().await;
    let owner = world.caller("owner").await;
    let stranger = world.caller("stranger").await;
    let (devbox, _) = world.devbox(&owner, &[]).await;
    let registry = &world.registry;
    let id = devbox.id.as_str();
    assert_eq!(refusal(registry.devbox(&stranger, id).await).0, RefusalKind::NotFound);
    assert_eq!(refusal(registry.shutdown_devbox(&stranger, id).await).0, RefusalKind::NotFound);
    let after = registry
        .list_devboxes(
            &stranger,
            &DevboxQuery { starting_after: Some(id.to_owned()), ..DevboxQuery::first(10) },
        )
        .await;
    assert_eq!(refusal(after).0, RefusalKind::NotFound);
    assert_eq!(
        registry.list_devboxes(&stranger, &DevboxQuery::first(10)).await.unwrap().total_count,
        Some(0)
    );
    assert_eq!(registry.devbox(&owner, id).await.unwrap(), devbox);
}

#[tokio::test]
async fn shutting_down_twice_changes_nothing() {
    let (world, caller, devbox, _) = World::with_devbox().await;
    let ended = world.registry.shutdown_devbox(&caller, devbox.id.as_str()).await.unwrap();
    assert_eq!(ended.status, DevboxStatus::Shutdown);
    assert!(ended.end_time_ms.is_some());
    assert_eq!(world.registry.shutdown_devbox(&caller, devbox.id.as_str()).await.unwrap(), ended);
}

#[tokio::test]
async fn a_join_token_is_made_for_running_devboxes_of_ones_own_account_only() {
    let world = World::new().await;
    let (caller, stranger) = (world.caller("acme").await, world.caller("other").await);
    let (devbox, _) = world.devbox(&caller, &[]).await;
    let id = devbox.id.as_str();
    let not_found = (RefusalKind::NotFound, "not_found");
    assert_eq!(refusal(world.registry.new_join_token(&stranger, id).await), not_found);
    assert_eq!(refusal(world.registry.new_join_token(&caller, "dbx_none").await), not_found);
    assert_eq!(refusal(world.registry.operator_of("ann", "dbx_none").await), not_found);
    let operator = world.registry.operator_of("ann", id).await.unwrap();
    let token = world.registry.new_join_token(&operator, id).await.unwrap();
    assert_eq!(world.newest().await.0, "devbox.join_token");
    assert_eq!(token.devbox_id(), id);
    world.registry.shutdown_devbox(&caller, id).await.unwrap();
    let ended = (RefusalKind::Forbidden, "devbox_shutdown");
    assert_eq!(refusal(world.registry.new_join_token(&caller, id).await), ended);
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    let powerless = world.registry.authenticate(&world.token("acme").await, None).await.unwrap();
    let refused = world.registry.new_join_token(&powerless, id).await;
    world.audited_refusal(refused, "devbox.join_token", RefusalKind::Forbidden, "no_devbox_capability").await;
}
