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
pub const ENTRY_OVERHEAD: usize = 128;

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
    #[must_use]
    pub fn as_str(self) -> &'static str {
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

/// An owner of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its identifier.
    pub id: AccountId,
    /// Its name, unique in the server.
    pub name: String,
    /// Its key, wrapped by the master key.
    pub wrapped_key: Vec<u8>,
    /// Whether it may use the API at all (403 without).
    pub devbox_capability: bool,
    /// When it was created.
    pub create_time_ms: TimeMs,
}

/// An API token, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its identifier.
    pub id: TokenId,
    /// Its account or devbox.
    pub account: AccountId,
    /// A name for people; may be empty.
    pub name: String,
    /// When it was created.
    pub create_time_ms: TimeMs,
    /// Its expiry. `None` if it never expires.
    pub expire_time_ms: Option<TimeMs>,
    /// The time of its revocation.
    pub revoke_time_ms: Option<TimeMs>,
    /// Its scopes.
    pub scopes: Scopes,
}

/// Which secret of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSelector<'a> {
    /// By its name.
    Name(&'a str),
    /// By its identifier, `sec_…`.
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
pub struct Secret {
    /// Its identifier.
    pub id: SecretId,
    /// Its name, unique in the account.
    pub name: String,
    /// 1 at creation, one more at each update.
    pub version: u64,
    /// When it was created.
    pub create_time_ms: TimeMs,
    /// When its value was last written.
    pub update_time_ms: TimeMs,
}

/// A secret and its value as the account's key sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// The secret.
    pub secret: Secret,
    /// The record that [`crate::crypto::AccountKey`] opens.
    pub sealed: Vec<u8>,
}

/// Whether a devbox may still have anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevboxStatus {
    /// It may join, renew and fetch.
    Running,
    /// It may do nothing any more.
    Shutdown,
}

impl DevboxStatus {
    /// The stored and printed form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A gateway binding, kept as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayBinding {
    /// The gateway config's name or identifier.
    pub gateway: String,
    /// The secret's name or identifier.
    pub secret: String,
}

/// A registered machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devbox {
    /// Its identifier.
    pub id: DevboxId,
    /// A name for people.
    pub name: Option<String>,
    /// Whether it may still have anything.
    pub status: DevboxStatus,
    /// When it was registered.
    pub create_time_ms: TimeMs,
    /// When it was shut down.
    pub end_time_ms: Option<TimeMs>,
    /// Free text of the registrant.
    pub metadata: BTreeMap<String, String>,
    /// Environment name → secret. `None` for every secret of the account under its own name.
    pub bindings: Option<BTreeMap<String, SecretId>>,
    /// Environment prefix → gateway binding.
    pub gateways: BTreeMap<String, GatewayBinding>,
}

/// A devbox CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its number; later CAs have greater numbers.
    pub number: i64,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 under the master key.
    pub wrapped_key: Vec<u8>,
    /// The end of trust in it. `None` for the CA that issues.
    pub trusted_until_time_ms: Option<TimeMs>,
}

/// The stored form of a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinGrant {
    /// SHA-256 of the secret part.
    pub hash: TokenHash,
    /// From when on it is refused.
    pub expire_time_ms: TimeMs,
}

/// A token that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UsableToken {
    /// An API token.
    Api(TokenHash),
    /// The join token of one devbox.
    Join(DevboxId, TokenHash),
}

/// A join token after the first one, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenIssue {
    /// Its identifier.
    pub id: JoinTokenId,
    /// Its account or devbox.
    pub devbox: DevboxId,
}

/// Why a join token is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefusal {
    /// No such devbox, or another secret.
    Unknown,
    /// It was redeemed before.
    Used,
    /// Its time is over.
    Expired,
    /// The devbox is shut down.
    Shutdown,
}

/// A certificate that was issued to a devbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its serial number, lowercase hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub issue_time_ms: TimeMs,
    /// From when on it is invalid.
    pub not_after_time_ms: TimeMs,
}

/// The effect of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// The account's wakes, if the renewal ended a third certificate, which another machine may be
    /// using.
    pub wakes: Option<u64>,
}

/// Everything that decides whether a devbox may have its bundle, and whether the bundle has
/// changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionState {
    /// Its account or devbox.
    pub account: AccountId,
    /// Whether it may still have anything.
    pub status: DevboxStatus,
    /// Whether its account may use the API at all.
    pub devbox_capability: bool,
    /// The account's revision: whether there is a newer bundle.
    pub revision: u64,
    /// The account's wakes.
    pub wakes: u64,
    /// The certificate's expiry. `None` if it was never issued to this devbox.
    pub certificate_not_after_time_ms: Option<TimeMs>,
    /// How long the devbox's bundle may get, in bytes.
    pub bundle_bytes: u64,
}

/// One value of a bundle, still sealed by the account's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundValue {
    /// Its environment name in the devbox.
    pub env: String,
    /// The secret and its sealed value.
    pub secret: SealedSecret,
}

/// The values of a devbox at one revision and the key to open them, from one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleContents {
    /// The account's revision.
    pub revision: u64,
    /// The account's key, wrapped by the master key.
    pub wrapped_key: Vec<u8>,
    /// The values, in ascending byte order of `env`. Bindings to deleted secrets are absent.
    pub values: Vec<BoundValue>,
}

/// A caller's own id for a write, and a keyed fingerprint of what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller's id; unique in the account for [`RECEIPT_LIFETIME_MS`].
    pub id: String,
    /// Of method, path and body.
    pub fingerprint: Fingerprint,
}

/// HMAC-SHA-256 under a key of the account, so that a reader of the database cannot test guesses of
/// a value against it.
pub type Fingerprint = [u8; 32];

/// How long a receipt is kept, in milliseconds.
pub const RECEIPT_LIFETIME_MS: TimeMs = 24 * 60 * 60 * 1000;

/// The result of a write: rows without a value or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// A secret that was created, updated or deleted.
    Secret(Secret),
    /// A devbox that was registered or shut down.
    Devbox(Devbox),
    /// A new join token.
    JoinToken(JoinTokenIssue),
}

/// The stored receipt of a write that a caller may retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The request.
    pub fingerprint: Fingerprint,
    /// The result.
    pub answer: Answered,
}

/// Some rows of a longer list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub rows: Vec<T>,
    /// Whether there are rows after these.
    pub has_more: bool,
    /// The length of the whole list, if it was requested.
    pub total_count: Option<u64>,
}

/// Which devboxes of an account to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevboxList {
    /// Most rows.
    pub limit: u32,
    /// The last devbox of the page before.
    pub after: Option<DevboxId>,
    /// Only those of this status.
    pub status: Option<DevboxStatus>,
    /// Whether to count them all.
    pub counted: bool,
}

impl DevboxList {
    /// The first `limit` devboxes of any status, counted.
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None, status: None, counted: true }
    }
}
