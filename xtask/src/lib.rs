//! Building and running the three programs, for `cargo xtask` and its bench.
#![allow(clippy::print_stdout, reason = "a command-line tool speaks to its terminal")]

pub mod build;
pub mod programs;
