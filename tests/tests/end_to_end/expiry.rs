//! Tokens and certificates expire: seen by a server whose calendar clock is later than the clients'.

use std::path::Path;

use devbox_secrets_tests::devbox::{Applicant, Listener};
use devbox_secrets_tests::needs;
use devbox_secrets_tests::world::World;

async fn later(world: &mut World, libfaketime: &Path, later: &str) {
    world.server.program.kill();
    world.server.start_again_later(libfaketime, later).await;
}

fn listener(world: &World) -> Listener {
    Listener::new(world.server.ready.devbox_address())
}

#[tokio::test]
async fn an_expired_certificate_does_not_pass_the_handshake() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut world = World::start().await;
    let devbox = world.devbox("box").await;
    let enrolled = listener(&world).enrolled(&devbox.join_token, &devbox.id).await;
    later(&mut world, &libfaketime, "+23h").await;
    assert_eq!(enrolled.bundle(None).await.unwrap().status, 200, "a day is not over");
    later(&mut world, &libfaketime, "+25h").await;
    let refused = enrolled.bundle(None).await;
    assert!(refused.is_err(), "{refused:?}");
    let renewal = enrolled.renew(&Applicant::new(&devbox.id)).await;
    assert!(renewal.is_err(), "{renewal:?}");
}

#[tokio::test]
async fn a_join_token_lives_ten_minutes() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut world = World::start().await;
    let (early, late) = (world.devbox("early").await, world.devbox("late").await);
    later(&mut world, &libfaketime, "+9m").await;
    listener(&world).enrolled(&early.join_token, &early.id).await;
    later(&mut world, &libfaketime, "+11m").await;
    listener(&world).enroll(&late.join_token, &Applicant::new(&late.id)).await.refusal(401);
    let records = world.server.operator_json(&["audit"]).await.to_string();
    assert!(records.contains("expired"), "{records}");
}

#[tokio::test]
async fn an_api_token_ends_when_it_was_made_to_end() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut world = World::start().await;
    let account = world.server.ready.account.clone();
    let create = ["token", "create", "--account", &account, "--expires", "1h"];
    let made = world.server.operator_json(&create).await;
    let api = world.api().with_token(made["token"].as_str().unwrap());
    assert_eq!(api.get("/v1/secrets").await.status, 200);
    later(&mut world, &libfaketime, "+2h").await;
    api.get("/v1/secrets").await.refusal(401);
}
