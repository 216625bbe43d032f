//! The stored rows. No row holds a plaintext or a token.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Scopes;
use crate::clock::TimeMs;
use crate::crypto::TokenHash;
use crate::crypto::id::{AccountId, DevboxId, JoinTokenId, SecretId, TokenId};

/// Room in a bundle for an entry's lengths, ids and version, in bytes. The database's triggers
/// count with the same number.
pub(crate) const ENTRY_OVERHEAD: usize = 128;

/// The budgets of accounts, devboxes and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Secrets of an account.
    Secrets,
    /// Stored bytes of an account's values.
    ValueBytes,
    /// Running devboxes of an account.
    Devboxes,
    /// Usable API tokens of an account.
    Tokens,
    /// Bindings of one devbox.
    Bindings,
    /// Bytes of one devbox's bundle.
    BundleBytes,
    /// Bytes of one devbox's metadata.
    MetadataBytes,
    /// Requests with one API token in a time.
    Requests,
    /// Bundle requests of one devbox in a time.
    Bundles,
    /// Certificate renewals of one devbox in a time.
    Renewals,
}

impl Budget {
    /// The word for it in metrics and errors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::ValueBytes => "value_bytes",
            Self::Devboxes => "devboxes",
            Self::Tokens => "tokens",
            Self::Bindings => "bindings",
            Self::BundleBytes => "bundle_bytes",
            Self::MetadataBytes => "metadata_bytes",
            Self::Requests => "requests",
            Self::Bundles => "bundles",
            Self::Renewals => "renewals",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    /// Its name, unique in the server.
    pub(crate) name: String,
    /// Its key, wrapped by the master key.
    pub(crate) wrapped_key: Vec<u8>,
    /// Whether it may use the API at all (403 without).
    pub(crate) devbox_capability: bool,
    pub(crate) create_time_ms: TimeMs,
}

/// An API token, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: TokenId,
    pub(crate) account: AccountId,
    /// A name for people; may be empty.
    pub(crate) name: String,
    pub(crate) create_time_ms: TimeMs,
    /// Its expiry. `None` if it never expires.
    pub(crate) expire_time_ms: Option<TimeMs>,
    pub(crate) revoke_time_ms: Option<TimeMs>,
    pub(crate) scopes: Scopes,
}

/// Which secret of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretSelector<'a> {
    Name(&'a str),
    Id(&'a str),
}

impl fmt::Display for SecretSelector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Id(text) => f.write_str(text),
        }
    }
}

/// A secret, but for its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) id: SecretId,
    /// Its name, unique in the account.
    pub(crate) name: String,
    /// 1 at creation, one more at each update.
    pub(crate) version: u64,
    pub(crate) create_time_ms: TimeMs,
    pub(crate) update_time_ms: TimeMs,
}

/// A secret and its value as the account's key sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedSecret {
    pub(crate) secret: Secret,
    /// The record that [`crate::crypto::AccountKey`] opens.
    pub(crate) sealed: Vec<u8>,
}

/// Whether a devbox may still have anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DevboxStatus {
    /// It may join, renew and fetch.
    Running,
    /// It may do nothing any more.
    Shutdown,
}

impl DevboxStatus {
    /// The stored and printed form.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A gateway binding, kept as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayBinding {
    /// The gateway config's name or identifier.
    pub(crate) gateway: String,
    /// The secret's name or identifier.
    pub(crate) secret: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Devbox {
    pub(crate) id: DevboxId,
    pub(crate) name: Option<String>,
    pub(crate) status: DevboxStatus,
    pub(crate) create_time_ms: TimeMs,
    pub(crate) end_time_ms: Option<TimeMs>,
    /// Free text of the registrant.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Environment name → secret. `None` for every secret of the account under its own name.
    pub(crate) bindings: Option<BTreeMap<String, SecretId>>,
    /// Environment prefix → gateway binding.
    pub(crate) gateways: BTreeMap<String, GatewayBinding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Its number; later CAs have greater numbers.
    pub(crate) number: i64,
    /// Its certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// Its private key, PKCS #8 under the master key.
    pub(crate) wrapped_key: Vec<u8>,
    /// The end of trust in it. `None` for the CA that issues.
    pub(crate) trusted_until_time_ms: Option<TimeMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JoinGrant {
    /// SHA-256 of the secret part.
    pub(crate) hash: TokenHash,
    /// From when on it is refused.
    pub(crate) expire_time_ms: TimeMs,
}

/// A token that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum UsableToken {
    /// An API token.
    Api(TokenHash),
    /// The join token of one devbox.
    Join(DevboxId, TokenHash),
}

/// A join token after the first one, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinTokenIssue {
    pub(crate) id: JoinTokenId,
    pub(crate) devbox: DevboxId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinRefusal {
    /// No such devbox, or another secret.
    Unknown,
    Used,
    Expired,
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedCertificate {
    /// Its serial number, lowercase hexadecimal.
    pub(crate) serial: String,
    pub(crate) issue_time_ms: TimeMs,
    /// From when on it is invalid.
    pub(crate) not_after_time_ms: TimeMs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewed {
    /// The account's wakes, if the renewal ended a third certificate, which another machine may be
    /// using.
    pub(crate) wakes: Option<u64>,
}

/// Everything that decides whether a devbox may have its bundle, and whether the bundle has
/// changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdmissionState {
    pub(crate) account: AccountId,
    pub(crate) status: DevboxStatus,
    pub(crate) devbox_capability: bool,
    /// The account's revision: whether there is a newer bundle.
    pub(crate) revision: u64,
    pub(crate) wakes: u64,
    /// The certificate's expiry. `None` if it was never issued to this devbox.
    pub(crate) certificate_not_after_time_ms: Option<TimeMs>,
    /// How long the devbox's bundle may get, in bytes.
    pub(crate) bundle_bytes: u64,
}

/// One value of a bundle, still sealed by the account's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundValue {
    pub(crate) env: String,
    pub(crate) secret: SealedSecret,
}

/// The values of a devbox at one revision and the key to open them, from one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleContents {
    pub(crate) revision: u64,
    /// The account's key, wrapped by the master key.
    pub(crate) wrapped_key: Vec<u8>,
    /// The values, in ascending byte order of `env`. Bindings to deleted secrets are absent.
    pub(crate) values: Vec<BoundValue>,
}

/// A caller's own id for a write, and a keyed fingerprint of what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestKey {
    /// The caller's id; unique in the account for [`RECEIPT_LIFETIME_MS`].
    pub(crate) id: String,
    /// Of method, path and body.
    pub(crate) fingerprint: Fingerprint,
}

/// HMAC-SHA-256 under a key of the account, so that a reader of the database cannot test guesses of
/// a value against it.
pub(crate) type Fingerprint = [u8; 32];

/// How long a receipt is kept, in milliseconds.
pub(crate) const RECEIPT_LIFETIME_MS: TimeMs = 24 * 60 * 60 * 1000;

/// The result of a write: rows without a value or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answered {
    Secret(Secret),
    Devbox(Devbox),
    JoinToken(JoinTokenIssue),
}

/// The stored receipt of a write that a caller may retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) answer: Answered,
}

/// Some rows of a longer list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T> {
    /// The rows, in the list's order.
    pub(crate) rows: Vec<T>,
    pub(crate) has_more: bool,
    /// The length of the whole list, if it was requested.
    pub(crate) total_count: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevboxList {
    /// Most rows.
    pub(crate) limit: u32,
    pub(crate) after: Option<DevboxId>,
    pub(crate) status: Option<DevboxStatus>,
    pub(crate) counted: bool,
}
