//! `account`: the owners of secrets.

use clap::{Args, Subcommand};

use super::Failure;
use super::output::{Output, table, time};
use crate::registry::{AccountView, Actor, Registry};

/// Create or list accounts, and grant or withdraw the devbox capability
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Create an account with a key of its own
    Create {
        /// A name, unique in the server
        name: String,
        /// Create it without the devbox capability: the API returns 403 until it is granted
        #[arg(long)]
        no_devbox_capability: bool,
    },
    /// List all accounts
    List,
    /// Grant or withdraw an account's devbox capability
    SetCapability {
        /// The account's name or id
        account: String,
        /// `on` or `off`
        #[arg(value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
        granted: bool,
    },
}

pub(super) async fn run(args: AccountArgs, registry: &Registry, actor: &Actor) -> Result<(), Failure> {
    let output = Output { json: args.json };
    match args.command {
        AccountCommand::Create { name, no_devbox_capability } => {
            let account = registry.create_account(actor, &name, !no_devbox_capability).await?;
            output.print(&account, |out| rows(out, std::slice::from_ref(&account)))
        }
        AccountCommand::List => {
            let accounts = registry.list_accounts().await?;
            output.print(&accounts, |out| rows(out, &accounts))
        }
        AccountCommand::SetCapability { account, granted } => {
            let account = registry.set_devbox_capability(actor, &account, granted).await?;
            output.print(&account, |out| rows(out, std::slice::from_ref(&account)))
        }
    }
}

fn rows(out: &mut dyn std::io::Write, accounts: &[AccountView]) -> std::io::Result<()> {
    let row = |account: &AccountView| {
        let capability = if account.devbox_capability { "yes" } else { "no" };
        [account.id.to_string(), account.name.clone(), capability.to_owned(), time(account.create_time_ms)]
    };
    table(out, ["ID", "NAME", "DEVBOXES", "CREATED"], accounts.iter().map(row))
}
