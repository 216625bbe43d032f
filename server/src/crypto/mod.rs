//! The keys that values and private keys are stored under, API tokens, identifiers.
//!
//! ```text
//! master key (file, never in the database) ──wraps──▶ account key ──seals──▶ values
//!                                          └─wraps──▶ private key of the devbox CA
//! ```
//!
//! Everything at rest is AES-256-GCM with a fresh random nonce, bound by additional data to the
//! place that it was stored at.

pub(crate) mod id;

mod account_key;
mod keyring;
mod master_key;
mod sealed;
mod token;

pub(crate) use account_key::{AccountKey, ValueLocation};
pub(crate) use devbox_secrets_common::secret_file::open_to_others;
pub(crate) use keyring::Keyring;
pub(crate) use master_key::{MASTER_KEY_ID_LEN, MasterKey, MasterKeyError};
pub(crate) use sealed::fill_random;
pub(crate) use sealed::{CryptoError, plaintext_len, sealed_len};
pub use token::ApiToken;
pub(crate) use token::{JoinSecret, TokenHash};
