//! Identifiers: a prefix for the kind, and 128 random bits, so that they cannot be guessed or
//! enumerated.

use data_encoding::HEXLOWER;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sealed::CryptoError;

/// Random bytes in an identifier.
const ID_LEN: usize = 16;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The prefix of every identifier of this kind.
            pub const PREFIX: &'static str = $prefix;

            /// A new one from the system's random numbers.
            ///
            /// # Errors
            /// [`CryptoError::Random`].
            pub fn generate() -> Result<Self, CryptoError> {
                random_id($prefix).map(Self)
            }

            /// The text, as given. Only the store knows whether the object exists.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The printed form.
            #[must_use]
            pub fn as_str(&self) -> &str {
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
    AccountId = "acc_";
    /// An API token's identifier, `tok_…`. It is no secret.
    TokenId = "tok_";
    /// A secret's identifier, `sec_…`.
    SecretId = "sec_";
    /// A devbox's identifier, `dbx_…`.
    DevboxId = "dbx_";
    /// One issue of a join token, `jtk_…`. It is no secret.
    JoinTokenId = "jtk_";
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
