//! `audit`: the record of all writes, deliveries and refusals. Rows are read and printed page by
//! page, so that years of them fit into memory.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use devbox_secrets_common::config::{self, InvalidQuantity};

use super::Failure;
use super::output::{table, time};
use crate::clock::{milliseconds, now_ms};
use crate::registry::{AccountId, Actor, AuditEntry, AuditPage, Registry};

/// How many rows are in memory at once.
const PAGE: u32 = 1000;

/// Show, export or prune the audit
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    /// Only rows of this account, by name or id
    #[arg(long)]
    account: Option<String>,
    /// Number of the newest rows
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(subcommand)]
    command: Option<AuditCommand>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Print all rows as JSON, one a line, oldest first
    Export {
        /// Only rows of this account, by name or id
        #[arg(long)]
        account: Option<String>,
        /// Start after the row with this number, the last one of an earlier export
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
    /// Export old rows to a file and delete them
    ///
    /// Newer rows cannot be deleted, and the deletion itself is a row.
    Prune {
        /// Delete rows older than this ("400d"), or before the row with this number
        #[arg(long, value_name = "AGE|NUMBER")]
        before: Before,
        /// Write the rows to this new file first, one JSON object a line
        #[arg(long, value_name = "FILE", required_unless_present = "no_export")]
        export: Option<PathBuf>,
        /// Delete without an export
        #[arg(long, conflicts_with = "export")]
        no_export: bool,
    },
}

/// The first row that is kept.
#[derive(Debug, Clone, Copy)]
enum Before {
    Age(Duration),
    Row(i64),
}

impl std::str::FromStr for Before {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(row) => Ok(Self::Row(row)),
            Err(_) => config::time(text).map(Self::Age),
        }
    }
}

pub(super) async fn run(args: AuditArgs, registry: &Registry, actor: &Actor) -> Result<(), Failure> {
    match args.command {
        None => newest(&args, registry).await,
        Some(AuditCommand::Export { account, after }) => {
            let account = account_id(registry, account.as_deref()).await?;
            let mut out = BufWriter::new(io::stdout().lock());
            export(registry, account.as_ref(), after..i64::MAX, &mut out).await?;
            out.flush().map_err(Failure::Output)
        }
        Some(AuditCommand::Prune { before, export, .. }) => {
            prune(registry, actor, before, export.as_deref()).await
        }
    }
}

async fn account_id(registry: &Registry, account: Option<&str>) -> Result<Option<AccountId>, Failure> {
    match account {
        Some(account) => Ok(Some(registry.account(account).await?.id)),
        None => Ok(None),
    }
}

async fn newest(args: &AuditArgs, registry: &Registry) -> Result<(), Failure> {
    let account = account_id(registry, args.account.as_deref()).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut before = i64::MAX;
    let mut left = args.limit;
    let mut printer = Printer { json: args.json, is_first: true };
    loop {
        let page = AuditPage::NewestBefore(before);
        let entries = registry.audit_page(account.as_ref(), page, left.min(PAGE)).await?;
        printer.print(&mut out, &entries).map_err(Failure::Output)?;
        left -= u32::try_from(entries.len()).unwrap_or(left);
        match entries.last() {
            Some(last) if left > 0 => before = last.sequence,
            _ => break,
        }
    }
    printer.end(&mut out).map_err(Failure::Output)
}

/// Prints pages as one JSON array on one line, or as one table a page.
struct Printer {
    json: bool,
    is_first: bool,
}

impl Printer {
    fn print(&mut self, out: &mut dyn Write, entries: &[AuditEntry]) -> io::Result<()> {
        if self.json {
            return entries.iter().try_for_each(|entry| self.print_json(out, entry));
        }
        if self.is_first || !entries.is_empty() {
            rows(out, entries)?;
        }
        self.is_first = false;
        Ok(())
    }

    fn print_json(&mut self, out: &mut dyn Write, entry: &AuditEntry) -> io::Result<()> {
        out.write_all(if self.is_first { b"[" } else { b"," })?;
        self.is_first = false;
        Ok(serde_json::to_writer(out, entry)?)
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            out.write_all(if self.is_first { b"[]\n" } else { b"]\n" })?;
        }
        out.flush()
    }
}

/// Writes the rows after `range.start` and before `range.end`.
async fn export(
    registry: &Registry,
    account: Option<&AccountId>,
    range: std::ops::Range<i64>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut after = range.start;
    loop {
        let page = registry.audit_page(account, AuditPage::OldestAfter(after), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.sequence;
        for entry in page {
            if entry.sequence >= range.end {
                return Ok(());
            }
            let line = serde_json::to_writer(&mut *out, &entry).map_err(io::Error::from);
            line.and_then(|()| out.write_all(b"\n")).map_err(Failure::Output)?;
        }
    }
}

async fn prune(
    registry: &Registry,
    actor: &Actor,
    before: Before,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let row = match before {
        Before::Row(row) => row,
        Before::Age(age) => registry.audit_row_at(now_ms().saturating_sub(milliseconds(age))).await?,
    };
    if let Some(path) = file {
        export_to(registry, row, path).await?;
    }
    let deleted = registry.prune_audit(actor, row).await?;
    writeln!(io::stdout(), "deleted {deleted} rows before row {row}").map_err(Failure::Output)
}

/// The file is on disk, whole, before a row is deleted.
async fn export_to(registry: &Registry, row: i64, path: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::Export { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    export(registry, None, 0..row, &mut out).await?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
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
