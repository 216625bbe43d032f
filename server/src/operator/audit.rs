//! `audit`: who did what to which name.

use std::io::{self, Write};

use clap::Args;

use super::OperatorError;
use super::output::{Output, table, time};
use crate::registry::{AuditEntry, Registry};

/// `audit …`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    /// Only this account's, by name or id
    #[arg(long)]
    account: Option<String>,
    /// How many of the newest
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

pub(super) async fn run(args: &AuditArgs, registry: &Registry) -> Result<(), OperatorError> {
    let account = match &args.account {
        Some(account) => Some(registry.account(account).await?.id),
        None => None,
    };
    let entries = registry.audit(account.as_ref(), args.limit).await?;
    Output { json: args.json }.print(&entries, |out| rows(out, &entries))
}

fn rows(out: &mut dyn Write, entries: &[AuditEntry]) -> io::Result<()> {
    let row = |entry: &AuditEntry| {
        [
            time(entry.time_ms),
            format!("{} {}", entry.actor_kind, entry.actor),
            entry.remote_address.clone().unwrap_or_default(),
            entry.action.clone(),
            entry.object_name.clone().unwrap_or_else(|| entry.object.clone()),
            entry.outcome.clone(),
            entry.reason.clone().unwrap_or_default(),
        ]
    };
    table(out, ["TIME", "WHO", "FROM", "DID", "TO", "OUTCOME", "WHY"], entries.iter().map(row))
}
