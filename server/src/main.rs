//! `devbox-secrets-server`: parse, harden, run, and report a failure.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use devbox_secrets_common::log::stderr;
use devbox_secrets_server::cli::{self, Cli, Exit, Failure};
use devbox_secrets_server::harden::harden;
use zeroizing_alloc::ZeroAlloc;

/// Everything that is freed is wiped: request buffers, TLS records, parsed values.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

const PROGRAM: &str = "devbox-secrets-server";

fn main() -> ExitCode {
    stderr::take_panics(PROGRAM);
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
        Ok(()) => stderr::flush(),
        Err(failure) => stderr::report_failure(PROGRAM, &failure.text()),
    }
    exit.into()
}

/// Prints clap's text: help and version to stdout, a mistake to stderr, which may have no reader.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return error.print().map_or(Exit::Failed, |()| Exit::Done).into();
    }
    let text = error.render();
    let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    match stderr::start() {
        Ok(()) => stderr::report_last(text.trim_end()),
        // Without a thread the text is written here, or lost.
        Err(_) => drop(error.print()),
    }
    Exit::Usage.into()
}

/// Hardens the process, then runs the command.
fn protected(cli: Cli) -> Result<(), Failure> {
    // After the hardening, which the thread inherits, and before its result is checked, because the
    // thread writes the failure.
    let hardened = harden();
    stderr::start().map_err(Failure::Runtime)?;
    hardened.map_err(Failure::Harden)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(cli::run(cli))
}
