//! Join tokens that were tried, by their SHA-256: any other token is fresh.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use devbox_secrets_proto::join_token::JoinToken;

/// Number of tokens that are remembered, the latest ones. An operator issues one at a time.
const MAX_TOKENS: usize = 16;

/// Tokens that this daemon and its predecessors tried to redeem. They are used up, or were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TriedTokens(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl TriedTokens {
    pub(crate) fn note(&mut self, token: &JoinToken) {
        if !self.has(token) {
            let surplus = (self.0.len() + 1).saturating_sub(MAX_TOKENS);
            self.0.drain(..surplus);
            self.0.push(digest_of(token));
        }
    }

    #[must_use]
    pub(crate) fn has(&self, token: &JoinToken) -> bool {
        self.0.contains(&digest_of(token))
    }

    /// Whether no token is known, because the identity came from files or from an earlier version of the daemon.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digests, one after the other.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// From [`Self::as_bytes`]; `None` for bytes that are no digests.
    #[must_use]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (digests, rest) = bytes.as_chunks();
        rest.is_empty().then(|| Self(digests.to_vec()))
    }
}

fn digest_of(token: &JoinToken) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = digest(&SHA256, token.expose_token().as_bytes());
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use devbox_secrets_proto::secret::SecretBytes;

    use super::*;

    fn token(secret: &str) -> JoinToken {
        JoinToken::new("dbx_1", SecretBytes::new(secret.as_bytes().to_vec()), [0; 32]).unwrap()
    }

    #[test]
    fn the_latest_tokens_are_remembered() {
        let mut tried = TriedTokens::default();
        for number in 0..=MAX_TOKENS {
            tried.note(&token(&format!("secret{number}")));
            tried.note(&token(&format!("secret{number}")));
        }
        assert!(!tried.has(&token("secret0")) && tried.has(&token("secret1")));
        assert!(tried.has(&token(&format!("secret{MAX_TOKENS}"))));
        assert_eq!(TriedTokens::from_bytes(tried.as_bytes()), Some(tried.clone()));
        assert_eq!(TriedTokens::from_bytes(&tried.as_bytes()[1..]), None);
    }
}
