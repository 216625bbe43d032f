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
fn the_document_says_who_needs_a_token_and_what_is_answered_without() {
    let document = document();
    assert_eq!(document["security"], json!([{"bearerAuth": []}]));
    for route in routes() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let open = operation["security"] == json!([]);
        assert_eq!(open, route.access == Access::Open, "{}", route.path);
        assert_eq!(operation["responses"]["401"].is_object(), !open, "{}", route.path);
    }
}
