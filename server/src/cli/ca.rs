//! `ca`: the devbox CAs, which sign the certificates of devboxes and of the devbox listener.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::Failure;
use super::output::{Output, table, time};
use crate::registry::{Actor, AuthorityView, Registry};

/// List, rotate or retire devbox CAs
#[derive(Debug, Args)]
pub(super) struct CaArgs {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// List the trusted CAs, newest first; the newest one issues
    List,
    /// Rotate the devbox CA without stopping the server: create a new CA that issues from now on
    ///
    /// The old CA is trusted until every certificate and join token from before has expired.
    /// Devboxes get the new CA with their next certificate, at two thirds of the old one's life,
    /// and can reach the server all the time. Pass the server's own --config, because it has the
    /// lifetime of certificates.
    ///
    /// If the old CA's key may have leaked, retire the old CA afterwards.
    Rotate,
    /// Stop trusting a CA at once, if its key may have leaked
    ///
    /// Every certificate that it signed is revoked. Devboxes that have not renewed since the
    /// rotation are refused within a second, wipe their secrets, and must join again with a new
    /// join token; join tokens from before the rotation are void. A devbox that has renewed
    /// continues, but trusts a server with the retired CA until its next renewal. The CA that
    /// issues cannot be retired: rotate first.
    Retire {
        /// The CA's fingerprint, as `ca list` shows it
        fingerprint: String,
    },
}

pub(super) async fn run(args: CaArgs, registry: &Registry, actor: &Actor) -> Result<(), Failure> {
    let output = Output { json: args.json };
    let (trusted, remark) = match args.command {
        CaCommand::List => (registry.list_cas(), None),
        CaCommand::Rotate => (registry.rotate_ca(actor).await?, None),
        CaCommand::Retire { fingerprint } => (registry.retire_ca(actor, &fingerprint).await?, Some(RETIRED)),
    };
    output.print(&trusted, |out| {
        rows(out, &trusted)?;
        remark.map_or(Ok(()), |remark| writeln!(out, "\n{remark}"))
    })
}

const RETIRED: &str = "\
Retired. Devboxes that have not renewed their certificate since the rotation have to join anew: make a fresh join token for
each (devbox join-token ID), and start its daemon with it or pass it to devbox-secretsd resume.";

fn rows(out: &mut dyn Write, trusted: &[AuthorityView]) -> io::Result<()> {
    let row = |ca: &AuthorityView| {
        let until = ca.trusted_until_time_ms.map_or_else(|| "issues".to_owned(), time);
        [ca.fingerprint.clone(), time(ca.create_time_ms), time(ca.end_time_ms), until]
    };
    table(out, ["FINGERPRINT", "CREATED", "EXPIRES", "TRUSTED UNTIL"], trusted.iter().map(row))
}
