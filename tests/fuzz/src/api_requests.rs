//! Requests to the Secrets API: a line `METHOD PATH`, then the body, sent to a real server by an account that may do
//! everything.

use serde_json::Value;

use crate::control_plane::{ControlPlane, with_server};
use crate::{CANARY, holds};

/// The statuses that the API's document allows for a request with a good token.
const STATUSES: [u16; 6] = [200, 400, 404, 405, 413, 415];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Longest path: hyper refuses much longer ones before the API sees them.
const MAX_PATH_LEN: usize = 1_000;

/// Sends the request.
///
/// # Panics
/// If the answer has an undocumented status or form, or repeats a value.
pub fn check(bytes: &[u8]) {
    let Some((method, path, body)) = parts(bytes) else { return };
    with_server(|server| {
        let answer = server.request(method, &path, body);
        assert!(STATUSES.contains(&answer.status), "{method} {path}: {}", answer.status);
        let json: Value = serde_json::from_slice(&answer.body).expect("every answer is JSON");
        if answer.status != 200 {
            check_error(&json);
        }
        if is_secret(&path, body, &json) {
            assert!(!holds(&answer.body, CANARY), "{method} {path} repeats a value: {json}");
        }
        if answer.status == 200 && (method, path.as_str()) == ("POST", "/v1/secrets") {
            delete(server, &json);
        }
    });
}

/// Method, path and body. The path is percent-encoded where HTTP would not take it as it stands.
fn parts(bytes: &[u8]) -> Option<(&str, String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (method, path) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
    let path: String = path.bytes().map(percent_encoded).collect();
    let known = METHODS.contains(&method) && path.starts_with('/') && path.len() <= MAX_PATH_LEN;
    known.then(|| (method, path, bytes.get(end + 1..).unwrap_or_default()))
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn check_error(json: &Value) {
    let object = json.as_object().expect("an error is an object");
    assert!(object.keys().eq(["code", "message"]), "{json}");
    let texts: Vec<&str> = object.values().filter_map(Value::as_str).collect();
    assert!(texts.len() == 2 && texts.iter().all(|text| !text.is_empty()), "{json}");
    assert!(!texts.iter().any(|text| text.chars().any(char::is_control)), "control characters: {json}");
}

/// Whether the canary is where only a value can be: in `value` and nowhere else, or in a body that was not understood. A
/// name may be repeated.
fn is_secret(path: &str, body: &[u8], answer: &Value) -> bool {
    let mut once = body.windows(CANARY.len()).filter(|window| *window == CANARY.as_bytes());
    if path.contains(CANARY) || once.next().is_none() || once.next().is_some() {
        return false;
    }
    let not_understood = answer.get("code").is_some_and(|code| code == "invalid_body");
    let value =
        serde_json::from_slice::<Value>(body).ok().and_then(|body| Some(body.get("value")?.to_string()));
    not_understood || value.is_some_and(|value| value.contains(CANARY))
}

/// Keeps the account as it was, and shows that what was created is there.
fn delete(server: &ControlPlane, created: &Value) {
    let name = created["name"].as_str().expect("a secret has a name");
    let answer = server.request("POST", &format!("/v1/secrets/{name}/delete"), b"");
    assert_eq!(answer.status, 200, "{name} was created and is not there");
}
