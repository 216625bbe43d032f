//! The control plane of Devbox Secrets: the Secrets API, encryption at rest, devbox identities, sealed bundles.
//!
//! The modules, from the top down; each uses only those below it (`tests/tests/tree/module_order.rs` checks this):
//!
//! - [`commands`]: runs one subcommand
//! - [`upkeep`]: the subcommands on the whole state: check, backup, restore, rotate
//! - [`cli`]: the command line, `--help` and the exit codes
//! - [`operator`]: the operators' subcommands: accounts, tokens, secrets, devboxes, CAs, audit
//! - [`app`]: wires the parts of a server
//! - [`listeners`]: binds the listeners of a configuration, and reloads them
//! - [`api`]: HTTP: routes, requests, responses
//! - [`tls`]: TLS of the listeners
//! - [`registry`]: decides who may do what, and records it
//! - [`metrics`]: counters and gauges
//! - [`store`]: keeps the state behind one trait; SQL is nowhere else
//! - [`crypto`]: the keys that values and private keys are stored under, API tokens, identifiers
//! - [`config`]: the configuration file
//! - [`logs`]: writes logs to standard error
//! - [`harden`]: protects the process before it reads a secret
//! - [`shutdown`]: the signal that the server is stopping
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod crypto;
pub mod harden;
pub mod listeners;
pub mod logs;
pub mod metrics;
pub mod operator;
pub mod registry;
pub mod shutdown;
pub mod store;
pub mod tls;
pub mod upkeep;
