//! Everything a person runs, by one name each: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]

mod demo;
mod fuzz;
mod suite;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build::{cargo, succeed};

/// Demo, tests and benchmarks of Devbox Secrets.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a server and a daemon, store a random secret over the real API, and run COMMAND with it.
    ///
    /// Everything lives in a temporary directory and on free loopback ports, and is stopped and removed at the end. The
    /// secret is in the command's environment as DEMO_SECRET. Exit status: the command's own.
    Demo {
        /// What to run under devbox-exec [default: a script that shows name, length and SHA-256 of what it got]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Build everything and run every test.
    ///
    /// As root it installs the Debian packages that the tests need; otherwise it says which are missing.
    Test {
        /// Run only the tests whose names contain one of these
        filters: Vec<String>,
    },
    /// Feed everything that reads bytes from outside with whatever libFuzzer thinks up.
    ///
    /// Exit status 1 where an input broke something; where it lies and how to run it again is on the terminal.
    Fuzz {
        /// Only this one [default: each in turn]
        target: Option<String>,
        /// How long, for each target
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
    },
    /// Measure launches, throughput, memory, boot and size, as ratios against baselines of the same run, a fleet, and budgets
    /// under attack.
    ///
    /// Builds the release profile first. Prints tables and draws target/bench/launch.svg. Parts: launch, fleet, budget. Options: `cargo xtask bench --help`.
    #[command(disable_help_flag = true)]
    Bench {
        /// Options of the bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Demo { command } => demo::run(command),
        Task::Test { filters } => suite::run(&filters),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Task::Bench { options } => bench(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The bench is a program of its own, so that no other task waits for its dependencies; optimised, for it is the other end of
/// what it measures.
fn bench(options: &[OsString]) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--release", "--package", "devbox-secrets-bench", "--"]).args(options);
    succeed(&mut command).map(|()| ExitCode::SUCCESS)
}
