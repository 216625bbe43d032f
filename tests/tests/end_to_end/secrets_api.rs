//! The Secrets API: what each operation answers when all is well.

use devbox_secrets_proto::name::max_value_len;
use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::client::{Answer, Api, Protocol};
use devbox_secrets_tests::world::World;
use serde_json::{Value, json};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A view has exactly these four fields, of these types.
#[track_caller]
fn check_view(view: &Value, name: &str) {
    let keys: Vec<&str> = view.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["create_time_ms", "id", "name", "update_time_ms"]);
    assert_eq!(view["name"], name);
    assert!(view["id"].as_str().is_some_and(|id| !id.is_empty()), "{view}");
    let (created, updated) =
        (view["create_time_ms"].as_i64().unwrap(), view["update_time_ms"].as_i64().unwrap());
    assert!(created > 1_700_000_000_000 && updated >= created, "milliseconds since the epoch: {view}");
}

fn names(list: &Value) -> Vec<&str> {
    list["secrets"].as_array().unwrap().iter().map(|view| view["name"].as_str().unwrap()).collect()
}

async fn list(api: &Api, query: &str) -> Value {
    api.get(&format!("/v1/secrets{query}")).await.expect(200).json()
}

#[tokio::test]
async fn the_five_operations_keep_their_contract_over_both_versions_of_http() {
    let world = World::start().await;
    for protocol in PROTOCOLS {
        let api = world.api().over(protocol);
        let created = api.create("DATABASE_PASSWORD", "first").await;
        check_view(&created, "DATABASE_PASSWORD");
        assert_eq!(api.get("/v1/secrets/DATABASE_PASSWORD").await.expect(200).json(), created);
        assert_eq!(names(&list(&api, "").await), ["DATABASE_PASSWORD"]);

        let updated = api.update("DATABASE_PASSWORD", "second").await;
        check_view(&updated, "DATABASE_PASSWORD");
        assert_eq!(
            (&updated["id"], &updated["create_time_ms"]),
            (&created["id"], &created["create_time_ms"])
        );
        assert_eq!(api.get("/v1/secrets/DATABASE_PASSWORD").await.expect(200).json(), updated);

        assert_eq!(api.delete("DATABASE_PASSWORD").await, updated);
        api.get("/v1/secrets/DATABASE_PASSWORD").await.refusal(404);
        assert_eq!(names(&list(&api, "").await), [""; 0]);
    }
}

#[tokio::test]
async fn the_forms_by_id_do_the_same() {
    let world = World::start().await;
    let api = world.api();
    let created = api.create("BY_ID", "first").await;
    let path = format!("/v1/secrets/id/{}", created["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.expect(200).json(), created);
    let updated = api.post(&format!("{path}/update"), &json!({ "value": "second" })).await.expect(200).json();
    check_view(&updated, "BY_ID");
    assert_eq!(api.post_empty(&format!("{path}/delete")).await.expect(200).json(), updated);
    api.get(&path).await.refusal(404);
}

#[tokio::test]
async fn secrets_may_be_called_like_the_words_in_the_paths() {
    let world = World::start().await;
    let api = world.api();
    for name in ["id", "delete", "update"] {
        let created = api.create(name, "first").await;
        assert_eq!(api.get(&format!("/v1/secrets/{name}")).await.expect(200).json(), created);
        check_view(&api.update(name, "second").await, name);
        check_view(&api.delete(name).await, name);
    }
}

#[tokio::test]
async fn delete_takes_no_body_or_an_empty_object() {
    let world = World::start().await;
    let api = world.api();
    api.create("ONE", "1").await;
    api.create("TWO", "2").await;
    check_view(&api.post_empty("/v1/secrets/ONE/delete").await.expect(200).json(), "ONE");
    let refused = api.post("/v1/secrets/TWO/delete", &json!({ "force": true })).await;
    refused.refusal(400);
    check_view(&api.post("/v1/secrets/TWO/delete", &json!({})).await.expect(200).json(), "TWO");
}

#[tokio::test]
async fn a_list_is_in_order_of_name_and_says_whether_there_is_more() {
    let world = World::start().await;
    let api = world.api();
    let empty = list(&api, "").await;
    assert_eq!(empty, json!({ "secrets": [], "has_more": false, "total_count": 0 }));
    for name in ["C", "_A", "a", "B", "A"] {
        api.create(name, "value").await;
    }
    for (limit, shown, has_more) in
        [(1, 1, true), (4, 4, true), (5, 5, false), (6, 5, false), (5001, 5, false)]
    {
        let page = list(&api, &format!("?limit={limit}")).await;
        assert_eq!(names(&page), ["A", "B", "C", "_A", "a"][..shown], "limit {limit}");
        assert_eq!((&page["has_more"], &page["total_count"]), (&json!(has_more), &json!(5)), "limit {limit}");
    }
}

#[tokio::test]
async fn a_list_without_a_limit_has_twenty() {
    let world = World::start().await;
    let api = world.api();
    for number in 0..21 {
        api.create(&format!("SECRET_{number}"), "value").await;
    }
    for query in ["", "?limit=", "?limit"] {
        let page = list(&api, query).await;
        assert_eq!(names(&page).len(), 20, "{query:?}");
        assert_eq!((&page["has_more"], &page["total_count"]), (&json!(true), &json!(21)), "{query:?}");
    }
}

#[tokio::test]
async fn a_value_may_fill_one_environment_variable_and_not_a_byte_more() {
    let world = World::start().await;
    let api = world.api();
    for name in ["K", &"N".repeat(255)] {
        let max = max_value_len(name);
        assert_eq!(max, 131_072 - name.len() - 2);
        // Two bytes in UTF-8, six in JSON: the limit counts bytes of the value, and leaves room for the escapes.
        let letters = "\u{1}".repeat(max % 2) + &"é".repeat(max / 2);
        check_view(&api.create(name, &letters).await, name);
        let escaped = "\u{1}".repeat(max);
        check_view(&api.update(name, &escaped).await, name);
        let refused = api.post(&format!("/v1/secrets/{name}"), &json!({ "value": escaped + "x" })).await;
        assert!(refused.refusal(400).contains(&max.to_string()));
    }
}

#[tokio::test]
async fn empty_and_odd_values_are_stored() {
    let world = World::start().await;
    let api = world.api();
    for (name, value) in
        [("EMPTY", ""), ("ODD", "a=b\n\"'\\\t€😀 "), ("LOOKS_LIKE_JSON", "{\"value\": null}")]
    {
        check_view(&api.create(name, value).await, name);
    }
}

/// Also nothing of what it is derived from: the answers are searched for the value in every usual encoding.
#[tokio::test]
async fn no_answer_has_a_value_in_it() {
    let world = World::start().await;
    let canary = Canary::random();
    let value = json!({ "value": canary.value() });
    let with = |name: Value| json!({ "name": name, "value": canary.value() });
    for protocol in PROTOCOLS {
        let api = world.api().over(protocol);
        let answers = [
            api.post("/v1/secrets", &with(json!("CANARY"))).await,
            api.post("/v1/secrets", &with(json!("CANARY"))).await,
            api.post("/v1/secrets", &with(json!("bad name"))).await,
            api.post("/v1/secrets", &with(json!(7))).await,
            api.post("/v1/secrets", &json!({ "name": "X", "value": [canary.value()] })).await,
            api.post("/v1/secrets", &json!({ "name": "X", "value": "", canary.value(): 1 })).await,
            api.post("/v1/secrets", &json!({ "name": canary.value(), "value": "" })).await,
            api.post("/v1/secrets", &json!(canary.value())).await,
            api.post("/v1/secrets/CANARY", &value).await,
            api.post("/v1/secrets/ABSENT", &value).await,
            api.post("/v1/secrets/CANARY/delete", &value).await,
            api.get("/v1/secrets/CANARY").await,
            api.get("/v1/secrets").await,
            api.without_token().post("/v1/secrets", &with(json!("CANARY"))).await,
            api.with_token(canary.value().split('"').next().unwrap()).get("/v1/secrets").await,
            api.post_empty("/v1/secrets/CANARY/delete").await,
        ];
        for answer in answers {
            check_clean(&answer, &canary);
        }
    }
}

#[track_caller]
fn check_clean(answer: &Answer, canary: &Canary) {
    assert_eq!(canary.found_in(&answer.body), [""; 0], "{}", answer.body_text());
    for (name, value) in &answer.headers {
        assert_eq!(canary.found_in(value.as_bytes()), [""; 0], "{name}");
    }
}
