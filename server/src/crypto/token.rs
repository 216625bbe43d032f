//! API tokens (256 random bits, shown once) and the secret part of join tokens (256 bits that are
//! derived, see [`AccountKey::join_secret`](super::AccountKey::join_secret)): both stored only as
//! SHA-256.
//!
//! ```text
//! API token = "dbs_"  random:[64 hexadecimal digits]  checksum:[8 hexadecimal digits]
//! ```
//!
//! The prefix lets scanners of source code find a leaked token, and the checksum (the first four
//! bytes of the SHA-256 of what goes before it) detects a mistyped one without a query. A token is
//! found by its hash: comparing hashes of 256-bit random texts reveals nothing about how close a
//! guess was.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use devbox_secrets_proto::secret::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

use super::sealed::{CryptoError, fill_random};

/// The prefix of every API token.
pub(crate) const TOKEN_PREFIX: &str = "dbs_";

const RANDOM_LEN: usize = 32;
const CHECKSUM_LEN: usize = 4;
const BODY_LEN: usize = TOKEN_PREFIX.len() + 2 * RANDOM_LEN;
const TOKEN_LEN: usize = BODY_LEN + 2 * CHECKSUM_LEN;

/// Why a text is not an API token. Never repeats the text.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidToken {
    /// Another length, prefix or alphabet.
    #[error("not an API token of this server: it has the form dbs_ and 72 hexadecimal digits")]
    Form,
    /// The last digits do not fit the others.
    #[error("the API token is mistyped or cut short: its checksum is wrong")]
    Checksum,
}

/// SHA-256 of a token: what is stored and looked up. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(hash)
    }

    /// A hash that was stored; `None` if it is not 32 bytes long.
    pub(crate) fn stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A new API token, to be shown once. Wiped on drop.
pub struct ApiToken(Zeroizing<String>);

impl ApiToken {
    /// A new token from the system's random numbers.
    pub(crate) fn generate() -> Result<Self, CryptoError> {
        let random = random_bytes()?;
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_LEN));
        text.push_str(TOKEN_PREFIX);
        // Within the capacity, so that no reallocation leaves a copy.
        HEXLOWER.encode_append(&*random, &mut text);
        let checksum = checksum(text.as_bytes());
        HEXLOWER.encode_append(&checksum, &mut text);
        Ok(Self(text))
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }

    /// The token itself.
    #[must_use]
    pub fn expose_token(&self) -> &str {
        &self.0
    }

    /// The hash by which to look up a presented token.
    ///
    /// # Errors
    /// [`InvalidToken`] if it cannot be one.
    pub fn hash_presented(presented: &SecretBytes) -> Result<TokenHash, InvalidToken> {
        let text = presented.expose_secret();
        if text.len() != TOKEN_LEN || !text.starts_with(TOKEN_PREFIX.as_bytes()) {
            return Err(InvalidToken::Form);
        }
        if !text[TOKEN_PREFIX.len()..].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidToken::Form);
        }
        let (body, written) = text.split_at(BODY_LEN);
        let mut expected = Zeroizing::new(String::with_capacity(2 * CHECKSUM_LEN));
        HEXLOWER.encode_append(&checksum(body), &mut expected);
        if expected.as_bytes() == written { Ok(TokenHash::of(text)) } else { Err(InvalidToken::Checksum) }
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken")
    }
}

/// The secret part of a join token: base64url (RFC 4648 section 5, no padding) of 256 unguessable
/// bits.
#[derive(Debug)]
pub(crate) struct JoinSecret(SecretBytes);

impl JoinSecret {
    /// The secret of these 256 unguessable bits.
    pub(super) fn from_bytes(bits: &[u8; RANDOM_LEN]) -> Self {
        let mut text = String::with_capacity(RANDOM_LEN.div_ceil(3) * 4);
        URL_SAFE_NO_PAD.encode_string(bits.as_slice(), &mut text);
        Self(SecretBytes::new(text.into_bytes()))
    }

    #[cfg(test)]
    pub(crate) fn generate() -> Result<Self, CryptoError> {
        Ok(Self::from_bytes(&*random_bytes()?))
    }

    pub(crate) fn hash(&self) -> TokenHash {
        Self::hash_presented(&self.0)
    }

    /// The secret, for [`devbox_secrets_proto::join_token::JoinToken::new`].
    pub(crate) fn into_secret(self) -> SecretBytes {
        self.0
    }

    /// The hash by which to look up a presented secret.
    pub(crate) fn hash_presented(presented: &SecretBytes) -> TokenHash {
        TokenHash::of(presented.expose_secret())
    }
}

fn random_bytes() -> Result<Zeroizing<[u8; RANDOM_LEN]>, CryptoError> {
    let mut random = Zeroizing::new([0; RANDOM_LEN]);
    fill_random(&mut *random)?;
    Ok(random)
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = TokenHash::of(body);
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&hash.0[..CHECKSUM_LEN]);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn present(text: &[u8]) -> Result<TokenHash, InvalidToken> {
        ApiToken::hash_presented(&SecretBytes::new(text.to_vec()))
    }

    #[test]
    fn a_presented_token_has_the_stored_hash() {
        let token = ApiToken::generate().unwrap();
        assert_eq!(token.expose_token().len(), TOKEN_LEN);
        assert_eq!(present(token.expose_token().as_bytes()), Ok(token.hash()));
        let secret = JoinSecret::generate().unwrap();
        let hash = secret.hash();
        assert_eq!(JoinSecret::hash_presented(&secret.into_secret()), hash);
    }

    #[test]
    fn no_two_tokens_are_alike_and_debug_shows_none() {
        let first = ApiToken::generate().unwrap();
        let second = ApiToken::generate().unwrap();
        assert_ne!(first.expose_token(), second.expose_token());
        assert!(!format!("{first:?}").contains(&first.expose_token()[4..]));
    }

    #[test]
    fn a_mistyped_digit_is_distinguished_from_other_texts() {
        let token = ApiToken::generate().unwrap();
        for at in TOKEN_PREFIX.len()..TOKEN_LEN {
            let mut mistyped = token.expose_token().as_bytes().to_vec();
            mistyped[at] = if mistyped[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(present(&mistyped), Err(InvalidToken::Checksum), "digit {at}");
        }
        assert_eq!(present(&token.expose_token().as_bytes()[1..]), Err(InvalidToken::Form));
        assert_eq!(present(b"ghp_0123456789"), Err(InvalidToken::Form));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_pass(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(present(&bytes).is_err());
        }

        #[test]
        fn a_text_in_the_form_of_a_token_fails_its_checksum(digits in "dbs_[0-9a-f]{72}") {
            prop_assert!(present(digits.as_bytes()).is_err());
        }
    }
}
