//! Identifiers: a prefix for the kind, and 128 random bits, so that they cannot be guessed or
//! enumerated.

use data_encoding::HEXLOWER;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sealed::CryptoError;

/// The prefix of every devbox's identifier.
pub(crate) const DEVBOX_PREFIX: &str = "dbx_";
/// Random bytes in an identifier.
const ID_LEN: usize = 16;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $vis:vis $name:ident = $prefix:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        $vis struct $name(String);

        impl $name {
            /// A new one from the system's random numbers.
            pub(crate) fn generate() -> Result<Self, CryptoError> {
                random_id($prefix).map(Self)
            }

            /// The text, as given. Only the store knows whether the object exists.
            #[allow(dead_code, reason = "join tokens' identifiers are only generated")]
            pub(crate) fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

identifiers! {
    /// An account's identifier, `acc_…`.
    pub AccountId = "acc_";
    /// An API token's identifier, `tok_…`. It is no secret.
    pub TokenId = "tok_";
    pub(crate) SecretId = "sec_";
    /// A devbox's identifier, `dbx_…`.
    pub DevboxId = DEVBOX_PREFIX;
    /// One issue of a join token, `jtk_…`. It is no secret.
    pub(crate) JoinTokenId = "jtk_";
}

fn random_id(prefix: &str) -> Result<String, CryptoError> {
    let mut bytes = [0; ID_LEN];
    super::sealed::fill_random(&mut bytes)?;
    let mut text = prefix.to_owned();
    HEXLOWER.encode_append(&bytes, &mut text);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_say_what_they_name_and_never_repeat() {
        let first = SecretId::generate().unwrap();
        let second = SecretId::generate().unwrap();
        assert_ne!(first, second);
        assert!(first.as_str().starts_with("sec_"));
        assert_eq!(first.as_str().len(), "sec_".len() + 2 * ID_LEN);
    }
}
