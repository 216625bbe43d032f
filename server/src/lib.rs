//! The control plane of Devbox Secrets: the Secrets API, encryption at rest, devbox identities,
//! sealed bundles.
//!
//! The modules, from the top down; each uses only those below it
//! (`tests/tests/tree/module_order.rs` checks this):
//!
//! - [`cli`]: the command line, one file a subcommand
//! - [`app`]: wires the parts of a server
//! - [`listeners`]: binds the listeners of a configuration, and reloads them
//! - [`api`]: HTTP: routes, requests, responses
//! - [`registry`]: decides who may do what, and records it
//! - [`pki`]: the devbox CAs, the certificates that they sign, and TLS of the listeners
//! - [`metrics`]: counters and gauges
//! - [`store`]: keeps the state behind one trait; SQL is nowhere else
//! - [`crypto`]: the keys that values and private keys are stored under, API tokens, identifiers
//! - [`config`]: the configuration file
//! - [`logs`]: writes logs to standard error
//! - [`harden`]: protects the process before it reads a secret
//! - [`clock`]: the wall clock in milliseconds
//! - [`shutdown`]: the signal that the server is stopping
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod cli;
pub(crate) mod clock;
pub mod config;
pub(crate) mod crypto;
pub mod harden;
pub mod listeners;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod pki;
pub mod registry;
pub mod shutdown;
pub(crate) mod store;
