//! The served document and the table of routes say the same.

use std::collections::BTreeSet;

use devbox_secrets_server::api::openapi::DOCUMENT;
use devbox_secrets_server::api::public::{Access, routes};
use serde_json::{Value, json};

use crate::support::{TestServer, get};

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[tokio::test]
async fn the_document_is_served() {
    let server = TestServer::start().await;
    assert_eq!(server.call(get("/openapi.json")).await.expect(200).json(), document());
}

#[test]
fn the_document_lists_exactly_the_routes() {
    let document = document();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let routed: BTreeSet<(String, String)> =
        routes().iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
    assert_eq!(documented, routed);
}

#[test]
fn the_document_has_the_routes_that_need_a_token_and_their_refusals() {
    let document = document();
    assert_eq!(document["security"], json!([{"bearerAuth": []}]));
    for route in routes() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let open = operation["security"] == json!([]);
        assert_eq!(open, route.access == Access::Open, "{}", route.path);
        assert_eq!(operation["responses"]["401"].is_object(), !open, "{}", route.path);
    }
}

#[test]
fn the_document_names_every_refusal_that_waiting_helps_against() {
    let document = document();
    let responses = &document["components"]["responses"];
    for (response, codes) in [
        (
            "RateLimited",
            &["budget_requests", "max_requests_per_account", "max_failures_per_second_per_address"][..],
        ),
        ("Busy", &["max_requests", "max_body_bytes", "database_busy", "too_many_connections"]),
    ] {
        let description = responses[response]["description"].as_str().unwrap();
        for code in codes {
            assert!(description.contains(code), "{response}: {code}");
        }
        assert!(responses[response]["headers"]["Retry-After"].is_object(), "{response}");
    }
    for route in routes().iter().filter(|route| route.access != Access::Open) {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        for (status, response) in [("429", "RateLimited"), ("503", "Busy")] {
            let expected = format!("#/components/responses/{response}");
            assert_eq!(operation["responses"][status]["$ref"], json!(expected), "{} {status}", route.path);
        }
    }
}
