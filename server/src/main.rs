//! `devbox-secrets-server`: parse, harden, run, and say how it ended.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use devbox_secrets_server::cli::{self, Cli, Exit, Failure};
use devbox_secrets_server::harden::harden;
use devbox_secrets_server::logs;
use zeroizing_alloc::ZeroAlloc;

/// Everything that is freed is wiped: request buffers, TLS records, parsed values.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let done = protected(cli);
    let exit = match &done {
        Ok(()) => Exit::Done,
        Err(failure) => failure.exit(),
    };
    match done {
        Ok(()) => logs::flush(),
        Err(failure) => logs::report_last(&format!("devbox-secrets-server: {}", logs::chain(&failure))),
    }
    exit.into()
}

/// Prints what clap has to say: help and version to stdout, a mistake to stderr, which may have no reader.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return error.print().map_or(Exit::Failed, |()| Exit::Done).into();
    }
    let text = error.render();
    let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    match logs::start_writer() {
        Ok(()) => logs::report_last(text.trim_end()),
        // Without a thread the text is written here, or lost.
        Err(_) => drop(error.print()),
    }
    Exit::Usage.into()
}

/// Hardens the process, then does what was asked.
fn protected(cli: Cli) -> Result<(), Failure> {
    // After the hardening: the thread inherits it. Before the result is looked at: the failure is written by the thread.
    let hardened = harden();
    logs::start_writer().map_err(Failure::Runtime)?;
    hardened.map_err(Failure::Harden)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(cli::run(cli))
}
