//! The commands that people run: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]

mod demo;
mod fuzz;
mod suite;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build::{cargo, succeed};

/// Demo, tests and benchmarks of Devbox Secrets
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a server and a daemon, store a random secret over the real API, and run COMMAND with it
    ///
    /// Uses a temporary directory and free loopback ports, and stops and removes everything at the end. The secret is
    /// DEMO_SECRET in the command's environment. The exit status is the command's.
    Demo {
        /// The command to run [default: a script that shows name, length and SHA-256 of the secret]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Build everything and run every test
    ///
    /// As root it installs the Debian packages that the tests need; otherwise it lists the missing ones.
    Test {
        /// Run only the tests whose names contain one of these
        filters: Vec<String>,
    },
    /// Fuzz every parser of bytes from outside with libFuzzer
    ///
    /// Exits with status 1 if an input causes a failure, and prints its path and how to run it again.
    Fuzz {
        /// Fuzz only this target [default: each in turn]
        target: Option<String>,
        /// Seconds for each target
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
    },
    /// Measure launches, a fleet of devboxes, and budgets under attack
    ///
    /// Launches, memory, boot and size are ratios against baselines of the same run. Builds the release profile first,
    /// prints tables, and draws target/bench/launch.svg. Parts: launch, fleet, budget. Options: cargo xtask bench --help.
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
