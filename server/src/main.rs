//! `devbox-secrets-server`: parse, harden, run, and say how it ended.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use devbox_secrets_server::cli::{Cli, Exit};
use devbox_secrets_server::commands::{self, Failure};
use devbox_secrets_server::harden::harden;
use zeroizing_alloc::ZeroAlloc;

/// Everything that is freed is wiped: request buffers, TLS records, parsed values.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match protected(cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            report(&failure);
            failure.exit().into()
        }
    }
}

/// Hardens the process, then does what was asked.
fn protected(cli: Cli) -> Result<(), Failure> {
    harden().map_err(Failure::Harden)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(commands::run(cli))
}

/// The failure and its causes, once.
fn report(failure: &Failure) {
    let mut text = format!("devbox-secrets-server: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}
