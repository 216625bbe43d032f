use devbox_secrets_proto::name::max_value_len;

use super::*;

#[tokio::test]
async fn a_secret_is_stored_updated_and_deleted_by_name_and_by_id() {
    let (world, caller) = World::with_account().await;
    let registry = &world.registry;
    let created = world.secret(&caller, "KEY", "one").await;
    for selector in [SecretSelector::Name("KEY"), SecretSelector::Id(created.id.as_str())] {
        assert_eq!(registry.secret(&caller, selector).await.unwrap().id, created.id);
        let updated = registry.update_secret(&caller, selector, bytes("two")).await.unwrap();
        assert_eq!((&updated.id, updated.create_time_ms), (&created.id, created.create_time_ms));
        assert!(updated.update_time_ms >= created.update_time_ms);
        let kept = registry.secret(&caller, selector).await.unwrap();
        assert_eq!(kept, updated);
    }
    let id = SecretSelector::Id(created.id.as_str());
    assert_eq!(registry.delete_secret(&caller, id).await.unwrap().id, created.id);
    assert_eq!(refusal(registry.secret(&caller, id).await).0, RefusalKind::NotFound);
    assert_eq!(refusal(registry.delete_secret(&caller, id).await).0, RefusalKind::NotFound);
    world.secret(&caller, "KEY", "again").await;
}

#[tokio::test]
async fn two_accounts_cannot_see_or_touch_each_others_secrets() {
    let world = World::new().await;
    let owner = world.caller("owner").await;
    let stranger = world.caller("stranger").await;
    let secret = world.secret(&owner, "KEY", "value").await;
    for selector in [SecretSelector::Name("KEY"), SecretSelector::Id(secret.id.as_str())] {
        let registry = &world.registry;
        let refusals = [
            refusal(registry.secret(&stranger, selector).await),
            refusal(registry.update_secret(&stranger, selector, bytes("mine")).await),
            refusal(registry.delete_secret(&stranger, selector).await),
        ];
        assert_eq!(refusals, [(RefusalKind::NotFound, "not_found"); 3]);
    }
    assert_eq!(world.registry.list_secrets(&stranger, 10, None).await.unwrap().secrets, []);
    world.secret(&stranger, "KEY", "theirs").await;
    assert_eq!(world.registry.list_secrets(&owner, 10, None).await.unwrap().secrets, [secret]);
}

#[tokio::test]
async fn bad_names_values_and_taken_names_are_refused_without_repeating_the_value() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "KEY", "first").await;
    let too_long = "hunter2".repeat(max_value_len("LONG") / 7 + 1);
    let cases = [
        ("9KEY", "hunter2", "invalid_name"),
        ("", "hunter2", "invalid_name"),
        ("A-B", "hunter2", "invalid_name"),
        ("NUL", "hunter2\0", "invalid_value"),
        ("LONG", &too_long, "invalid_value"),
        ("KEY", "hunter2", "name_taken"),
    ];
    for (name, value, code) in cases {
        let refused = world.registry.create_secret(&caller, name, bytes(value)).await.unwrap_err();
        assert_eq!((refused.kind(), refused.code()), (RefusalKind::Invalid, code), "{name}");
        assert!(!format!("{refused:?} {refused}").contains("hunter2"), "{name}");
    }
    let update = world.registry.update_secret(&caller, SecretSelector::Name("KEY"), bytes("a\0")).await;
    assert_eq!(refusal(update), (RefusalKind::Invalid, "invalid_value"));
}

#[tokio::test]
async fn the_longest_value_of_a_name_fits_and_an_empty_one_too() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "LONG", &"x".repeat(max_value_len("LONG"))).await;
    world.secret(&caller, "EMPTY", "").await;
}

#[tokio::test]
async fn a_value_must_also_fit_the_names_that_devboxes_have_it_under() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "S", "short").await;
    world.devbox(&caller, &[("A_LONGER_NAME", "S")]).await;
    let value = "x".repeat(max_value_len("S"));
    let update = world.registry.update_secret(&caller, SecretSelector::Name("S"), bytes(&value)).await;
    assert_eq!(refusal(update), (RefusalKind::Invalid, "invalid_value"));

    world.secret(&caller, "T", &value).await;
    let secrets = Some(BTreeMap::from([("A_LONGER_NAME".to_owned(), "T".to_owned())]));
    let new = NewDevbox { secrets, ..NewDevbox::default() };
    let refused = world.registry.create_devbox(&caller, new).await;
    assert_eq!(refusal(refused), (RefusalKind::Invalid, "invalid_value"));
}

#[tokio::test]
async fn every_write_is_audited_by_name_and_never_by_value() {
    let (world, caller) = World::with_account().await;
    world.secret(&caller, "KEY", "hunter2").await;
    let key = SecretSelector::Name("KEY");
    world.registry.update_secret(&caller, key, bytes("hunter3")).await.unwrap();
    world.registry.delete_secret(&caller, key).await.unwrap();
    let entries = world.registry.audit(Some(caller.account()), 3).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["secret.delete", "secret.update", "secret.create"]);
    assert!(entries.iter().all(|entry| entry.object_name.as_deref() == Some("KEY")));
    assert!(entries.iter().all(|entry| entry.actor == caller.token_id().unwrap().as_str()));
    assert!(!format!("{entries:?}").contains("hunter"));
}

#[tokio::test]
async fn no_file_of_the_state_holds_a_value_or_a_token() {
    let (world, caller) = World::with_account().await;
    let token = world.token("acme").await;
    world.secret(&caller, "KEY", "canary-3f9a7c51").await;
    let (_, join) = world.devbox(&caller, &[]).await;
    let needles = [b"canary-3f9a7c51", token.expose_secret(), join.secret().expose_secret()];
    for file in std::fs::read_dir(world.directory.path()).unwrap() {
        let path = file.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        for needle in needles {
            assert!(!content.windows(needle.len()).any(|window| window == needle), "{path:?}");
        }
    }
}
