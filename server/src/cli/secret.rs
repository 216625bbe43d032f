//! `secret`: an account's secrets. Values can be written, but never read.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use devbox_secrets_proto::secret::SecretBytes;

use super::Failure;
use super::output::{Output, table, time};
use super::value::Reading;
use crate::registry::{Caller, Refusal, RefusalKind, Registry, SecretPage, SecretSelector, SecretView};

/// The most secrets of one read.
const PAGE: u32 = 5000;

/// Set, list or delete secrets
#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Create a secret, or replace its value
    ///
    /// The value is every byte of standard input, including a line end at its end, or one line
    /// typed at a prompt without echo.
    Set {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// The secret's name: letters, digits and _, not starting with a digit
        name: String,
        /// Remove one line end from the end of the value, as `echo` and editors add it
        #[arg(long)]
        trim_newline: bool,
        /// Allow an empty value
        #[arg(long)]
        allow_empty: bool,
    },
    /// List an account's secrets, without their values
    List {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// Number of secrets [default: all]
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Delete a secret for good, and remove it from every devbox
    Delete {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// The secret's name
        name: String,
    },
}

pub(super) async fn run(args: SecretArgs, registry: &Registry, user: &str) -> Result<(), Failure> {
    let output = Output { json: args.json };
    match args.command {
        SecretCommand::Set { account, name, trim_newline, allow_empty } => {
            let caller = registry.operator(user, &account).await?;
            let value = Reading { trim_newline, allow_empty }.read().await?;
            let secret = set(registry, &caller, &name, value).await?;
            output.print(&secret, |out| rows(out, std::slice::from_ref(&secret)))
        }
        SecretCommand::List { account, limit } => {
            let caller = registry.operator(user, &account).await?;
            let page = list(registry, &caller, limit.unwrap_or(usize::MAX)).await?;
            output.print(&page, |out| rows(out, &page.secrets))
        }
        SecretCommand::Delete { account, name } => {
            let caller = registry.operator(user, &account).await?;
            let secret = registry.delete_secret(&caller, SecretSelector::Name(&name)).await?;
            output.print(&secret, |out| rows(out, std::slice::from_ref(&secret)))
        }
    }
}

/// Page by page.
async fn list(registry: &Registry, caller: &Caller, limit: usize) -> Result<SecretPage, Refusal> {
    let mut all = registry.list_secrets(caller, PAGE, None).await?;
    while all.has_more && all.secrets.len() < limit {
        let last = all.secrets.last().map(|secret| secret.name.clone());
        let next = registry.list_secrets(caller, PAGE, last.as_deref()).await?;
        all.has_more = next.has_more;
        all.secrets.extend(next.secrets);
    }
    all.has_more |= all.secrets.len() > limit;
    all.secrets.truncate(limit);
    Ok(all)
}

async fn set(
    registry: &Registry,
    caller: &Caller,
    name: &str,
    value: SecretBytes,
) -> Result<SecretView, Refusal> {
    match registry.secret(caller, SecretSelector::Name(name)).await {
        Ok(_) => registry.update_secret(caller, SecretSelector::Name(name), value).await,
        Err(refusal) if refusal.kind() == RefusalKind::NotFound => {
            registry.create_secret(caller, name, value).await
        }
        Err(refusal) => Err(refusal),
    }
}

fn rows(out: &mut dyn Write, secrets: &[SecretView]) -> io::Result<()> {
    let row = |secret: &SecretView| {
        [secret.id.to_string(), secret.name.clone(), time(secret.create_time_ms), time(secret.update_time_ms)]
    };
    table(out, ["ID", "NAME", "CREATED", "UPDATED"], secrets.iter().map(row))
}
