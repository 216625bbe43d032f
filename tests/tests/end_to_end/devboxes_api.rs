//! The registry of devboxes.

use devbox_secrets_tests::world::World;
use serde_json::{Value, json};

fn ids(list: &Value) -> Vec<&str> {
    list["devboxes"].as_array().unwrap().iter().map(|view| view["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_devbox_is_registered_with_a_binding_map_and_metadata() {
    let world = World::start().await;
    let api = world.api();
    api.create("DATABASE_PASSWORD", "value").await;
    let body = json!({
        "name": "builder",
        "secrets": { "DB_PASS": "DATABASE_PASSWORD" },
        "metadata": { "team": "ci" },
    });
    let view = api.post("/v1/devboxes", &body).await.expect(200).json();
    assert_eq!((&view["name"], &view["status"]), (&json!("builder"), &json!("running")));
    assert_eq!(view["metadata"], json!({ "team": "ci" }));
    assert!(view["create_time_ms"].as_i64().is_some_and(|time| time > 1_700_000_000_000));
    assert!(view["join_token"].as_str().is_some_and(|token| token.starts_with(view["id"].as_str().unwrap())));
}

#[tokio::test]
async fn the_join_token_is_shown_once() {
    let world = World::start().await;
    let devbox = world.devbox("once").await;
    let secret = devbox.join_token.split('.').nth(1).unwrap();
    let answers = [
        world.api().get(&format!("/v1/devboxes/{}", devbox.id)).await,
        world.api().get("/v1/devboxes").await,
        world.api().post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 200);
        assert!(
            !answer.body_text().contains(secret) && !answer.body_text().contains("join_token"),
            "{}",
            answer.body_text()
        );
    }
}

#[tokio::test]
async fn bindings_that_cannot_be_are_refused() {
    let world = World::start().await;
    let api = world.api();
    api.create("THERE", "value").await;
    for (secrets, named) in [
        (json!({ "DB_PASS": "ABSENT" }), "DB_PASS"),
        (json!({ "bad name": "THERE" }), "name"),
        (json!({ "DB_PASS": 7 }), ""),
        (json!(["THERE"]), ""),
    ] {
        let message =
            api.post("/v1/devboxes", &json!({ "name": "b", "secrets": secrets })).await.refusal(400);
        assert!(message.contains(named), "{secrets}: {message}");
    }
    let machine = json!({ "name": "b", "blueprint_id": "bp_1" });
    assert!(api.post("/v1/devboxes", &machine).await.refusal(400).contains("blueprint_id"));
    assert_eq!(api.get("/v1/devboxes").await.expect(200).json()["total_count"], 0);
}

#[tokio::test]
async fn devboxes_are_listed_page_by_page() {
    let world = World::start().await;
    let api = world.api();
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(world.devbox(&format!("box-{number}")).await.id);
    }
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().map(|id| format!("&starting_after={id}")).unwrap_or_default();
        let page = api.get(&format!("/v1/devboxes?limit=2{after}")).await.expect(200).json();
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        assert_eq!(page["total_count"], 5);
        assert_eq!(page["has_more"], json!(seen.len() < 5));
        if seen.len() >= 5 {
            break;
        }
    }
    seen.sort_unstable();
    made.sort_unstable();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_shut_down_devbox_stays_in_the_registry() {
    let world = World::start().await;
    let api = world.api();
    let devbox = world.devbox("ends").await;
    let path = format!("/v1/devboxes/{}", devbox.id);
    assert_eq!(api.get(&path).await.expect(200).json()["end_time_ms"], Value::Null);
    let ended = api.post_empty(&format!("{path}/shutdown")).await.expect(200).json();
    assert_eq!(ended["status"], "shutdown");
    assert!(ended["end_time_ms"].as_i64() >= ended["create_time_ms"].as_i64());
    assert_eq!(
        api.post_empty(&format!("{path}/shutdown")).await.expect(200).json(),
        ended,
        "twice is as once"
    );
    assert_eq!(api.get(&path).await.expect(200).json()["status"], "shutdown");
    api.get("/v1/devboxes/dbx_0").await.refusal(404);
}

#[tokio::test]
async fn every_operation_on_devboxes_needs_a_token() {
    let world = World::start().await;
    let devbox = world.devbox("guarded").await;
    let api = world.api().without_token();
    let one = format!("/v1/devboxes/{}", devbox.id);
    let answers = [
        api.get("/v1/devboxes").await,
        api.get(&one).await,
        api.post("/v1/devboxes", &json!({ "name": "x" })).await,
        api.post_empty(&format!("{one}/shutdown")).await,
        api.post_empty(&format!("{one}/join_token")).await,
    ];
    for answer in answers {
        assert_ne!(answer.header("www-authenticate"), "");
        answer.expect(401);
    }
    assert_eq!(world.api().get(&one).await.expect(200).json()["status"], "running");
}
