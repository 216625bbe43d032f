//! Text that is presented as a join token or an API token.

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use devbox_secrets_server::registry::ApiToken;

use crate::assert_message;

/// Parses `bytes` as either.
///
/// # Panics
/// If a message repeats a secret, or a parsed token is another once printed.
pub fn check(bytes: &[u8]) {
    match JoinToken::parse(bytes) {
        Ok(token) => check_join_token(&token),
        Err(error) => assert_message(&error.to_string()),
    }
    if let Err(error) = ApiToken::hash_presented(&SecretBytes::new(bytes.to_vec())) {
        assert_message(&error.to_string());
    }
}

fn check_join_token(token: &JoinToken) {
    let printed = token.expose_token();
    let again = JoinToken::parse(printed.as_bytes()).expect("a printed token parses");
    assert_eq!(again.devbox_id(), token.devbox_id());
    assert_eq!(again.secret().expose_secret(), token.secret().expose_secret());
    assert_eq!(again.ca_fingerprint(), token.ca_fingerprint());
    assert_eq!(again.expose_token(), printed, "a token has two printed forms");
}
