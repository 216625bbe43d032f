//! The registry of devboxes.

use devbox_secrets_tests::world::World;
use serde_json::{Value, json};

fn ids(list: &Value) -> Vec<&str> {
    list["devboxes"].as_array().unwrap().iter().map(|view| view["id"].as_str().unwrap()).collect()
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
