//! `devbox`: an account's devboxes. A join token is printed once, when it is created.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Failure;
use super::output::{Output, optional_time, table, time};
use crate::registry::{DevboxQuery, DevboxView, NewDevbox, Registry};

/// Register, list or shut down devboxes, and create join tokens
#[derive(Debug, Args)]
pub(super) struct DevboxArgs {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: DevboxCommand,
}

#[derive(Debug, Subcommand)]
enum DevboxCommand {
    /// Register a devbox and print its join token, once
    Register {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// A name for it
        name: String,
        /// Give it this secret, by name or id, under this environment name; may be repeated
        /// [default: every secret of the account under its own name]
        #[arg(long = "secret", value_name = "ENV=SECRET", value_parser = parse_binding)]
        secrets: Vec<(String, String)>,
    },
    /// List an account's devboxes, newest first
    List {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// Number of devboxes, at most 5000
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Continue after this devbox
        #[arg(long, value_name = "ID")]
        starting_after: Option<String>,
    },
    /// Create a join token for a devbox and print it once: to resume after a snapshot, or if its
    /// certificate is lost
    ///
    /// It works once, for ten minutes. Only the token is printed: pipe it to `devbox-secretsd
    /// resume --join-token-file -`. The devbox's previous join token is void. Redeeming the new one
    /// revokes every earlier certificate of the devbox, so a copy that still has one gets no more
    /// secrets.
    JoinToken {
        /// The devbox's id, dbx_…
        id: String,
    },
    /// Shut down a devbox: it can fetch no more secrets
    Shutdown {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// The devbox's id, dbx_…
        id: String,
    },
}

/// The output of `join-token --json`.
#[derive(Serialize)]
struct Token<'a> {
    join_token: &'a str,
}

/// The output of `register --json`.
#[derive(Serialize)]
struct Registered<'a> {
    #[serde(flatten)]
    view: &'a DevboxView,
    join_token: &'a str,
}

pub(super) async fn run(args: DevboxArgs, registry: &Registry, user: &str) -> Result<(), Failure> {
    let output = Output { json: args.json };
    match args.command {
        DevboxCommand::Register { account, name, secrets } => {
            register(registry, user, &account, new_devbox(name, secrets), output).await
        }
        DevboxCommand::List { account, limit, starting_after } => {
            let caller = registry.operator(user, &account).await?;
            let query = DevboxQuery { starting_after, ..DevboxQuery::first(limit) };
            let page = registry.list_devboxes(&caller, &query).await?;
            output.print(&page, |out| rows(out, &page.devboxes))
        }
        DevboxCommand::JoinToken { id } => {
            let caller = registry.operator_of(user, &id).await?;
            let token = registry.new_join_token(&caller, &id).await?;
            let token = token.expose_token();
            output.print(&Token { join_token: &token }, |out| writeln!(out, "{}", *token))
        }
        DevboxCommand::Shutdown { account, id } => {
            let caller = registry.operator(user, &account).await?;
            let devbox = registry.shutdown_devbox(&caller, &id).await?;
            output.print(&devbox, |out| rows(out, std::slice::from_ref(&devbox)))
        }
    }
}

async fn register(
    registry: &Registry,
    user: &str,
    account: &str,
    new: NewDevbox,
    output: Output,
) -> Result<(), Failure> {
    let caller = registry.operator(user, account).await?;
    let (view, token) = registry.create_devbox(&caller, new).await?;
    let token = token.expose_token();
    output.print(&Registered { view: &view, join_token: &token }, |out| {
        rows(out, std::slice::from_ref(&view))?;
        writeln!(out)?;
        writeln!(out, "{}\n\nThe join token is shown only now; it works once, for ten minutes.", *token)
    })
}

fn new_devbox(name: String, secrets: Vec<(String, String)>) -> NewDevbox {
    let secrets = if secrets.is_empty() { None } else { Some(secrets.into_iter().collect()) };
    NewDevbox { name: Some(name), secrets, ..NewDevbox::default() }
}

fn parse_binding(text: &str) -> Result<(String, String), &'static str> {
    let (env, secret) = text.split_once('=').ok_or("a binding has the form ENV=SECRET")?;
    Ok((env.to_owned(), secret.to_owned()))
}

fn rows(out: &mut dyn Write, devboxes: &[DevboxView]) -> io::Result<()> {
    let row = |devbox: &DevboxView| {
        [
            devbox.id.to_string(),
            devbox.name.clone().unwrap_or_default(),
            devbox.status.as_str().to_owned(),
            devbox.secrets.as_ref().map_or_else(|| "all".to_owned(), |secrets| secrets.len().to_string()),
            time(devbox.create_time_ms),
            optional_time(devbox.end_time_ms),
        ]
    };
    table(out, ["ID", "NAME", "STATUS", "SECRETS", "CREATED", "ENDED"], devboxes.iter().map(row))
}
