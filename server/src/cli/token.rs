//! `token`: an account's API tokens. A token is printed once, at its creation, and never again.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use devbox_secrets_common::config;
use serde::Serialize;

use super::Failure;
use super::output::{Output, optional_time, table, time};
use crate::clock::{TimeMs, milliseconds, now_ms};
use crate::registry::{Actor, Registry, Scope, Scopes, TokenView};

/// Create, list or revoke API tokens
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token and print it once
    Create {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// A name for it
        #[arg(long, default_value = "operator")]
        name: String,
        /// Lifetime: 90s, 15m, 24h, 30d [default: no expiry]
        #[arg(long, value_name = "SPAN", value_parser = config::time)]
        expires: Option<Duration>,
        /// Scopes of the token: secrets:read, secrets:write, devboxes, audit or admin; may be
        /// repeated [default: all but admin]. With `devboxes` the holder can read values, through a
        /// devbox that it registers
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
    },
    /// List an account's tokens, without the tokens themselves
    List {
        /// The account's name or id
        #[arg(long)]
        account: String,
    },
    /// Revoke a token at once and for good
    Revoke {
        /// The account's name or id
        #[arg(long)]
        account: String,
        /// The token's id, tok_…
        id: String,
    },
}

/// The output of `create --json`.
#[derive(Serialize)]
struct CreatedToken<'a> {
    #[serde(flatten)]
    view: &'a TokenView,
    token: &'a str,
}

pub(super) async fn run(args: TokenArgs, registry: &Registry, actor: &Actor) -> Result<(), Failure> {
    let output = Output { json: args.json };
    match args.command {
        TokenCommand::Create { account, name, expires, scopes } => {
            let expire_time_ms = expires.map(from_now).transpose()?;
            let scopes = if scopes.is_empty() { Scopes::default() } else { scopes.into_iter().collect() };
            let (view, token) = registry.create_token(actor, &account, &name, expire_time_ms, scopes).await?;
            let token = token.expose_token();
            output.print(&CreatedToken { view: &view, token }, |out| {
                rows(out, std::slice::from_ref(&view))?;
                writeln!(out, "\n{token}\n\nThis is the only time that the token is shown.")
            })
        }
        TokenCommand::List { account } => {
            let tokens = registry.list_tokens(&account).await?;
            output.print(&tokens, |out| rows(out, &tokens))
        }
        TokenCommand::Revoke { account, id } => {
            let token = registry.revoke_token(actor, &account, &id).await?;
            output.print(&token, |out| rows(out, std::slice::from_ref(&token)))
        }
    }
}

fn from_now(span: Duration) -> Result<TimeMs, Failure> {
    now_ms().checked_add(milliseconds(span)).ok_or(Failure::Expiry)
}

fn rows(out: &mut dyn Write, tokens: &[TokenView]) -> io::Result<()> {
    let row = |token: &TokenView| {
        [
            token.id.to_string(),
            token.name.clone(),
            time(token.create_time_ms),
            optional_time(token.expire_time_ms),
            optional_time(token.revoke_time_ms),
            token.scopes.to_string(),
        ]
    };
    table(out, ["ID", "NAME", "CREATED", "EXPIRES", "REVOKED", "SCOPES"], tokens.iter().map(row))
}
