//! The chain over the audit's rows: each row's hash covers the row and the hash before it, so that
//! a changed, removed or inserted row shows. A writer of the file can make a new chain, but not one
//! that ends in a head that was exported or logged elsewhere.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

use super::AuditEntry;

/// SHA-256.
pub(crate) const HASH_LEN: usize = 32;

pub(crate) type AuditHash = [u8; HASH_LEN];

/// The hash that the first row follows.
pub(crate) const CHAIN_START: AuditHash = [0; HASH_LEN];

/// The hash of `entry` after a row with the hash `previous`.
pub(crate) fn chained(previous: &AuditHash, entry: &AuditEntry) -> AuditHash {
    let mut context = Context::new(&SHA256);
    context.update(b"devbox-secrets audit row 1\0");
    context.update(previous);
    context.update(&entry.sequence.to_be_bytes());
    context.update(&entry.time_ms.to_be_bytes());
    let fields = [
        entry.account.as_deref(),
        Some(&entry.actor_kind),
        Some(&entry.actor),
        Some(&entry.action),
        Some(&entry.object),
        entry.object_name.as_deref(),
        Some(&entry.outcome),
        entry.reason.as_deref(),
        entry.remote_address.as_deref(),
    ];
    for field in fields {
        add(&mut context, field);
    }
    let mut hash = CHAIN_START;
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Length-prefixed, so that no two rows share an encoding.
fn add(context: &mut Context, field: Option<&str>) {
    let Some(text) = field else { return context.update(&[0]) };
    context.update(&[1]);
    context.update(&(text.len() as u64).to_be_bytes());
    context.update(text.as_bytes());
}

/// Follows the chain, row by row.
#[derive(Debug)]
pub(crate) struct Chain(AuditHash);

impl Chain {
    /// From the floor of the audit, or from the first row.
    pub(crate) fn after(floor: Option<AuditHash>) -> Self {
        Self(floor.unwrap_or(CHAIN_START))
    }

    /// Whether `entry` is the next row. Rows from before there was a chain pass until the first
    /// that has a hash.
    pub(crate) fn follows(&mut self, entry: &AuditEntry) -> bool {
        let Some(hash) = &entry.hash else { return self.0 == CHAIN_START };
        self.0 = chained(&self.0, entry);
        *hash == HEXLOWER.encode(&self.0)
    }
}
