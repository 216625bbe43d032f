//! The promises that need a service manager, under a real systemd as PID 1 with the repository's own unit files.
//!
//! Each test boots a machine of its own and runs one script in it, once under this machine's own systemd (252 on Debian
//! 12) and once under that of Debian 13 (257). A subject alone: `cargo test -p devbox-secrets-tests --test systemd
//! restart::`; one system alone: `… debian_13`.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod boot;
mod credentials;
mod journal;
mod policy;
mod restart;
mod support;
mod suspend;
mod template;
mod units;
