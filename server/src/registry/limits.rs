//! Limits for names, values and free texts of callers.

use std::collections::BTreeMap;

use devbox_secrets_proto::name::{InvalidVariable, check_name, check_value};
use devbox_secrets_proto::secret::SecretBytes;

use super::Refusal;
use crate::store::GatewayBinding;

/// Most rows of one answer.
pub(super) const MAX_PAGE: u32 = 5000;

/// Longest name of an account, token or devbox, in bytes.
const MAX_TEXT_LEN: usize = 255;

/// A secret's name.
pub(super) fn secret_name(name: &str) -> Result<(), Refusal> {
    check_name(name).map_err(|error| Refusal::invalid("invalid_name", error.to_string()))
}

/// A value under the name that it has in a devbox's environment.
pub(super) fn value(env: &str, value: &SecretBytes) -> Result<(), Refusal> {
    check_value(env, value.expose_secret()).map_err(|error| invalid_value(env, error))
}

pub(super) fn invalid_value(env: &str, error: InvalidVariable) -> Refusal {
    Refusal::invalid("invalid_value", format!("{env}: {error}"))
}

/// A name of an environment variable that a devbox gets a secret under.
pub(super) fn env_name(env: &str) -> Result<(), Refusal> {
    let invalid = |error| {
        Refusal::invalid("invalid_binding", format!("a key of `secrets` is no environment name: {error}"))
    };
    check_name(env).map_err(invalid)
}

/// A text for people; `what` names it in errors.
pub(super) fn text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > MAX_TEXT_LEN || text.chars().any(char::is_control) {
        let message = format!("{what} has 1 to {MAX_TEXT_LEN} bytes and no control characters");
        return Err(Refusal::invalid("invalid_text", message));
    }
    Ok(())
}

/// How many bytes a devbox's metadata has.
pub(super) fn metadata_len(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// A devbox's gateway bindings. They are refused until a gateway exists, because the devbox would
/// not get them.
pub(super) fn gateways(gateways: &BTreeMap<String, GatewayBinding>) -> Result<(), Refusal> {
    if gateways.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid("unsupported_gateways", "`gateways` is not supported yet: leave it out"))
}
