//! The stored state, behind one trait: [`Store`]. Only its implementations contain SQL.
//!
//! Every implementation promises:
//! - a write and its audit row are one transaction, on disk before the call returns;
//! - a write with a [`RequestKey`] stores a receipt in the same transaction, and fails without a
//!   change if the account already has one of that id: [`StoreError::Answered`];
//! - a query takes the account and returns that account's rows only; the few that determine *which*
//!   account ([`Identities`], [`Accounts::token_by_hash`]) say so;
//! - a write of an account's secrets adds one to the account's revision and to its wakes, in the
//!   same transaction; a write that ends a devbox, its certificates or the account's capability
//!   adds one to the wakes only: the other devboxes re-check their authorization and fetch nothing.
//!   Registering a devbox wakes no other.
//!
//! The tests in `suite.rs` are the behaviour that each must show.

mod audit;
mod audit_chain;
mod error;
pub(crate) mod location;
mod model;
mod scope;
pub(crate) mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;

pub use audit::Actor;
pub(crate) use audit::{Action, AuditEntry, AuditFloor, AuditPage, AuditRecord, Outcome};
pub(crate) use audit_chain::{AuditHash, CHAIN_START, Chain, chained};
pub(crate) use error::StoreError;
pub(crate) use location::{Extent, Location, OpenLock, ServeClaim, StateError};
pub(crate) use model::{
    Account, AdmissionState, Answered, Authority, BoundValue, Budget, BundleContents, Devbox, DevboxList,
    DevboxStatus, ENTRY_OVERHEAD, GatewayBinding, IssuedCertificate, JoinGrant, JoinRefusal, JoinTokenIssue,
    Page, RECEIPT_LIFETIME_MS, Receipt, Renewed, RequestKey, SealedSecret, Secret, SecretSelector, Token,
    UsableToken,
};
pub use scope::Scope;
pub(crate) use scope::Scopes;

pub(crate) use crate::clock::TimeMs;

use crate::config::Limits;
use crate::crypto::id::{AccountId, DevboxId, SecretId, TokenId};
use crate::crypto::{CryptoError, TokenHash};

/// A record under the master key, by its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrapped<'a> {
    Account(&'a AccountId),
    Authority,
    /// The constant that identifies the master key.
    KeyCheck,
}

/// Wraps a record under another master key.
pub(crate) type RewrapFor<'a> = dyn Fn(Wrapped<'_>, &[u8]) -> Result<Vec<u8>, CryptoError> + Send + Sync + 'a;

/// Seals a value for the version that it will have, under the account's wrapped key as it is in the
/// same transaction.
pub(crate) type SealFor<'a> = dyn Fn(&[u8], u64) -> Result<Vec<u8>, CryptoError> + Send + Sync + 'a;

/// Facts of the whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaKey {
    /// A constant under the master key.
    KeyCheck,
}

impl MetaKey {
    /// The stored form.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::KeyCheck => "master-key-check",
        }
    }
}

/// Facts of the whole state, and of its changes.
#[async_trait]
pub(crate) trait Meta {
    /// Reads one fact.
    async fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes what every state has, all or none: the key check, and the first devbox CA, whose
    /// number it returns.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if it is there.
    async fn create_state(
        &self,
        key_check: &[u8],
        certificate: &[u8],
        wrapped_key: &[u8],
    ) -> Result<i64, StoreError>;

    /// Replaces every record under the master key in one transaction; returns how many.
    async fn rewrap(&self, rewrap: &RewrapFor<'_>, audit: &AuditRecord) -> Result<u64, StoreError>;

    /// Shortens the files on disk when a server stops. Correctness does not depend on it.
    async fn checkpoint(&self) -> Result<(), StoreError>;

    /// Returns when any process may have written since the last call. One caller at a time.
    async fn changed(&self) -> Result<(), StoreError>;
}

#[async_trait]
pub(crate) trait Authorities {
    /// All that are kept, newest first; also those whose time is over.
    async fn authorities(&self) -> Result<Vec<Authority>, StoreError>;

    /// Adds the CA that issues from now on. Its predecessor stays trusted until `until_ms`, or
    /// until the last devbox's certificate ends if that is later, and `margin_ms` longer. CAs whose
    /// time is over are deleted.
    ///
    /// # Errors
    /// [`StoreError::Rotated`] if its key was wrapped under another master key than the state's key
    /// check.
    async fn insert_authority(
        &self,
        certificate: &[u8],
        wrapped_key: &[u8],
        until_ms: TimeMs,
        margin_ms: TimeMs,
        audit: &AuditRecord,
    ) -> Result<(), StoreError>;

    /// Deletes a CA that does not issue, and wakes every held request; false if there is none of
    /// that number.
    async fn delete_authority(&self, number: i64, audit: &AuditRecord) -> Result<bool, StoreError>;
}

#[async_trait]
pub(crate) trait Accounts {
    /// # Errors
    /// [`StoreError::Taken`] if the name is; [`StoreError::Rotated`] if its key was wrapped under
    /// another master key than the state's key check.
    async fn insert_account(&self, account: &Account, audit: &AuditRecord) -> Result<(), StoreError>;

    async fn account(&self, id: &AccountId) -> Result<Option<Account>, StoreError>;

    async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError>;

    /// All accounts, by name.
    async fn accounts(&self) -> Result<Vec<Account>, StoreError>;

    /// Grants or withdraws the devbox capability; returns the account's wakes, `None` if there is
    /// no such account.
    async fn set_devbox_capability(
        &self,
        id: &AccountId,
        granted: bool,
        audit: &AuditRecord,
    ) -> Result<Option<u64>, StoreError>;

    /// How often the held requests of each of `ids` had to look again, in one read; accounts that
    /// do not exist are absent.
    async fn wakes(&self, ids: &[AccountId]) -> Result<Vec<(AccountId, u64)>, StoreError>;

    /// # Errors
    /// [`StoreError::OverBudget`].
    async fn insert_token(
        &self,
        token: &Token,
        hash: TokenHash,
        limits: &Limits,
        audit: &AuditRecord,
    ) -> Result<(), StoreError>;

    /// The account's tokens, oldest first.
    async fn tokens(&self, account: &AccountId) -> Result<Vec<Token>, StoreError>;

    /// Revokes a token; the time of an earlier revocation stays.
    async fn revoke_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        audit: &AuditRecord,
    ) -> Result<Option<Token>, StoreError>;

    /// Whose token this is: one of the look-ups that find out which account.
    async fn token_by_hash(&self, hash: TokenHash) -> Result<Option<(Token, Account)>, StoreError>;

    /// All API tokens and join tokens, of any account, that are valid at `now_ms`.
    async fn usable_tokens(&self, now_ms: TimeMs) -> Result<HashSet<UsableToken>, StoreError>;
}

/// Makes another wrapped key of an account's; `None` if it stays.
pub(crate) type ChangeKey<'a> = dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, CryptoError> + Send + Sync + 'a;

/// Seals a secret's record anew under the account's wrapped key, which comes first; `None` if it
/// stays.
pub(crate) type ResealFor<'a> =
    dyn Fn(&[u8], SealedSecret) -> Result<Option<Vec<u8>>, CryptoError> + Send + Sync + 'a;

/// Makes the stored form of a join token, whose secret is derived from the account's wrapped key.
/// The key is read in the transaction of the write, so that no token is derived from a key that the
/// account no longer has.
pub(crate) type GrantFor<'a> = dyn Fn(&[u8]) -> Result<JoinGrant, CryptoError> + Send + Sync + 'a;

/// A page of secrets that was re-sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resealed {
    pub(crate) last: String,
    pub(crate) count: u64,
}

/// Re-keying accounts, in small transactions between those of others.
#[async_trait]
pub(crate) trait Rekeying {
    /// Changes an account's wrapped key and voids its join tokens that were not used, in one
    /// transaction; false if the key stays.
    async fn begin_rekey(&self, account: &AccountId, change: &ChangeKey<'_>) -> Result<bool, StoreError>;

    /// Seals a few values anew, by name from the one after `after`; `None` if there is none.
    async fn reseal_secrets(
        &self,
        account: &AccountId,
        after: &str,
        reseal: &ResealFor<'_>,
    ) -> Result<Option<Resealed>, StoreError>;

    /// Changes an account's wrapped key, with the audit's row in the same transaction.
    async fn end_rekey(
        &self,
        account: &AccountId,
        change: &ChangeKey<'_>,
        audit: &AuditRecord,
    ) -> Result<(), StoreError>;
}

#[async_trait]
pub(crate) trait Secrets {
    /// Adds a secret, whose value `seal` gives; returns the account's wakes.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if the account has one of that name; [`StoreError::OverBudget`].
    async fn insert_secret(
        &self,
        account: &AccountId,
        secret: &Secret,
        seal: &SealFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<u64, StoreError>;

    async fn secret(
        &self,
        account: &AccountId,
        selector: SecretSelector<'_>,
    ) -> Result<Option<SealedSecret>, StoreError>;

    /// Replaces a secret's value: `seal` gets the new version. Returns the secret and the account's
    /// wakes.
    ///
    /// # Errors
    /// [`StoreError::TooLongFor`]; [`StoreError::OverBudget`] for a value that is longer than its
    /// predecessor.
    async fn update_secret(
        &self,
        account: &AccountId,
        id: &SecretId,
        seal: &SealFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<(Secret, u64)>, StoreError>;

    /// Deletes a secret for good; returns the account's wakes.
    async fn delete_secret(
        &self,
        account: &AccountId,
        id: &SecretId,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<u64>, StoreError>;

    /// `limit` secrets by name, from the one after the name `after`; an empty text is before all
    /// names.
    async fn secrets(&self, account: &AccountId, after: &str, limit: u32)
    -> Result<Page<Secret>, StoreError>;

    /// Up to `limit` secrets with their sealed values, by name, from the one after the name
    /// `after`.
    async fn sealed_secrets(
        &self,
        account: &AccountId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<SealedSecret>, StoreError>;

    /// For each of `texts`, the secret of that id, else of that name.
    async fn secret_ids(
        &self,
        account: &AccountId,
        texts: &[&str],
    ) -> Result<Vec<Option<SecretId>>, StoreError>;
}

/// Responses of writes that callers may retry.
#[async_trait]
pub(crate) trait Receipts {
    /// The account's receipt for the caller's id `request`, unless its time is over at `now_ms`.
    async fn receipt(
        &self,
        account: &AccountId,
        request: &str,
        now_ms: TimeMs,
    ) -> Result<Option<Receipt>, StoreError>;
}

#[async_trait]
pub(crate) trait Devboxes {
    /// # Errors
    /// [`StoreError::TooLongFor`], [`StoreError::OverBudget`].
    async fn insert_devbox(
        &self,
        account: &AccountId,
        devbox: &Devbox,
        join: &GrantFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<(), StoreError>;

    async fn devbox(&self, account: &AccountId, id: &DevboxId) -> Result<Option<Devbox>, StoreError>;

    /// The devboxes that `list` asks for, newest first; `None` if the account has no devbox
    /// `list.after`.
    async fn devboxes(
        &self,
        account: &AccountId,
        list: &DevboxList,
    ) -> Result<Option<Page<Devbox>>, StoreError>;

    /// Shuts a running devbox down; returns the account's wakes, `None` if no such devbox runs.
    async fn shutdown_devbox(
        &self,
        account: &AccountId,
        id: &DevboxId,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<u64>, StoreError>;

    /// Puts a join token in the place of the running devbox's last one; false if no such devbox
    /// runs.
    async fn replace_join(
        &self,
        account: &AccountId,
        issue: &JoinTokenIssue,
        join: &GrantFor<'_>,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<bool, StoreError>;

    /// The values that the devbox may have now; `None` if no such devbox is running.
    async fn bundle_contents(
        &self,
        account: &AccountId,
        id: &DevboxId,
    ) -> Result<Option<BundleContents>, StoreError>;
}

/// Identities of devboxes: queries that determine the account.
#[async_trait]
pub(crate) trait Identities {
    async fn devbox_owner(&self, id: &DevboxId) -> Result<Option<(AccountId, DevboxStatus)>, StoreError>;

    /// The admission state of a devbox with the certificate of this serial number (lowercase
    /// hexadecimal): one read, without values.
    async fn admission_state(
        &self,
        id: &DevboxId,
        serial: &str,
    ) -> Result<Option<AdmissionState>, StoreError>;

    /// Whether a join token would be redeemed at `now_ms`.
    async fn check_join(
        &self,
        devbox: &DevboxId,
        hash: TokenHash,
        now_ms: TimeMs,
    ) -> Result<Result<(), JoinRefusal>, StoreError>;

    /// Redeems a join token for a certificate, and ends every earlier certificate of the devbox: of
    /// any number of attempts, one succeeds. A refusal writes nothing. Returns the account's wakes
    /// if an earlier certificate was revoked.
    async fn redeem_join(
        &self,
        devbox: &DevboxId,
        hash: TokenHash,
        certificate: &IssuedCertificate,
        audit: &AuditRecord,
    ) -> Result<Result<Option<u64>, JoinRefusal>, StoreError>;

    /// Adds the certificate that follows on the one with the serial number `shown`, and ends every
    /// other one of the devbox: two are valid at most. `None` if no such devbox is running, or if
    /// that certificate is no longer valid.
    async fn insert_certificate(
        &self,
        devbox: &DevboxId,
        shown: &str,
        certificate: &IssuedCertificate,
        audit: &AuditRecord,
    ) -> Result<Option<Renewed>, StoreError>;
}

#[async_trait]
pub(crate) trait AuditLog {
    /// Writes one row that belongs to no other write: a refusal, or a delivery.
    async fn record(&self, audit: &AuditRecord) -> Result<(), StoreError>;

    /// The newest `limit` rows, newest first; of one account or of all.
    async fn audit(&self, account: Option<&AccountId>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.audit_page(account, AuditPage::NewestBefore(i64::MAX), limit).await
    }

    /// Up to `limit` rows; of one account or of all.
    async fn audit_page(
        &self,
        account: Option<&AccountId>,
        page: AuditPage,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError>;

    /// From which row on the audit is kept.
    async fn audit_floor(&self) -> Result<AuditFloor, StoreError>;

    /// Raises the floor to the number `sequence`, for which `audit` has to be the row: older rows
    /// may be deleted then. False, and nothing is written, if the floor is there or above.
    async fn raise_audit_floor(&self, sequence: i64, audit: &AuditRecord) -> Result<bool, StoreError>;

    /// Deletes a few hundred of the rows beneath the floor; returns how many.
    async fn delete_audit_beneath_floor(&self) -> Result<u64, StoreError>;
}

/// Kinds of rows that end and are kept for a while after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Certificates that are no longer valid.
    Certificates,
    /// Join tokens that were used or have expired.
    JoinTokens,
    /// Receipts whose time is over.
    Receipts,
    /// Devboxes that were shut down, with all that belongs to them.
    Devboxes,
}

impl Ended {
    pub(crate) const ALL: [Self; 4] = [Self::Certificates, Self::JoinTokens, Self::Receipts, Self::Devboxes];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::JoinTokens => "join tokens",
            Self::Receipts => "receipts",
            Self::Devboxes => "devboxes",
        }
    }
}

/// Deletes rows that ended long ago, in small transactions between those of others.
#[async_trait]
pub(crate) trait Retention {
    /// Deletes a few of those that ended before `before_ms`; returns how many, 0 if none is left.
    async fn delete_ended(&self, what: Ended, before_ms: TimeMs) -> Result<u64, StoreError>;

    /// Gives a part of the unused space of the state back to the disk; false if there is little or
    /// none left.
    async fn shrink(&self) -> Result<bool, StoreError>;
}

pub(crate) trait Store:
    Meta
    + Authorities
    + Accounts
    + Secrets
    + Receipts
    + Devboxes
    + Identities
    + AuditLog
    + Retention
    + Rekeying
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Store for T where
    T: Meta
        + Authorities
        + Accounts
        + Secrets
        + Receipts
        + Devboxes
        + Identities
        + AuditLog
        + Retention
        + Rekeying
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}
