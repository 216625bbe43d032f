//! The Secrets API: accounts that cannot see each other.

use devbox_secrets_tests::client::Api;
use devbox_secrets_tests::world::World;
use serde_json::json;

use crate::secrets_api_refusals::operations_on_one;

/// The API for a token of a new account.
async fn account(world: &World) -> Api {
    let name = devbox_secrets_tests::canary::random_letters(8);
    let made = world.server.operator_json(&["account", "create", &name]).await;
    let id = made["id"].as_str().unwrap();
    let made = world.server.operator_json(&["token", "create", "--account", id]).await;
    world.api().with_token(made["token"].as_str().unwrap())
}

#[tokio::test]
async fn an_account_cannot_tell_that_anothers_secret_exists() {
    let world = World::start().await;
    let (mine, theirs) = (world.api(), account(&world).await);
    let secret = mine.create("SECRET", "mine").await;
    let id = secret["id"].as_str().unwrap();
    for (method, path, body) in operations_on_one(id) {
        let answer = theirs.send(theirs.request(method.clone(), &path, body.as_ref())).await;
        let absent_path =
            path.replace(id, "sec_00000000000000000000000000000000").replace("SECRET", "ABSENT");
        let absent = theirs.send(theirs.request(method, &absent_path, body.as_ref())).await;
        let told = |text: String| text.replace(id, "").replace("sec_00000000000000000000000000000000", "");
        assert_eq!(
            told(answer.refusal(404)).replace("SECRET", "ABSENT"),
            told(absent.refusal(404)),
            "{path}"
        );
    }
    assert_eq!(theirs.get("/v1/secrets").await.expect(200).json()["total_count"], 0);
    assert_eq!(mine.get("/v1/secrets/SECRET").await.expect(200).json(), secret, "it is unchanged");
}

#[tokio::test]
async fn two_accounts_may_use_one_name() {
    let world = World::start().await;
    let (mine, theirs) = (world.api(), account(&world).await);
    let my_secret = mine.create("SHARED_NAME", "mine").await;
    let their_secret = theirs.create("SHARED_NAME", "theirs").await;
    assert_ne!(my_secret["id"], their_secret["id"]);
    theirs.delete("SHARED_NAME").await;
    assert_eq!(mine.get("/v1/secrets/SHARED_NAME").await.expect(200).json(), my_secret);
}

#[tokio::test]
async fn an_account_cannot_see_anothers_devboxes_nor_bind_its_secrets() {
    let world = World::start().await;
    let (mine, theirs) = (world.api(), account(&world).await);
    let secret = mine.create("SECRET", "mine").await;
    let devbox = world.devbox("mine").await;
    theirs.get(&format!("/v1/devboxes/{}", devbox.id)).await.refusal(404);
    theirs.post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await.refusal(404);
    theirs.post_empty(&format!("/v1/devboxes/{}/join_token", devbox.id)).await.refusal(404);
    assert_eq!(theirs.get("/v1/devboxes").await.expect(200).json()["total_count"], 0);
    for name in ["SECRET", secret["id"].as_str().unwrap()] {
        let body = json!({ "name": "theirs", "secrets": { "STOLEN": name } });
        theirs.post("/v1/devboxes", &body).await.refusal(400);
    }
}
