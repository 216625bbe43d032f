//! The control plane of Devbox Secrets: the Secrets API, encryption at rest, devbox identities, sealed bundles.
//!
//! Three layers, each knowing only the next: HTTP ([`api`]) → decisions ([`registry`]) → SQL ([`store`]).
//!
//! - [`crypto`]: the keys that values and private keys are stored under, API tokens, identifiers;
//! - [`store`]: what is kept, behind one trait; SQL nowhere else;
//! - [`registry`]: who may do what, and what is written down about it;
//! - [`operator`]: the operators' subcommands; [`upkeep`]: those that are about the whole state.
//!
//! Around them: [`cli`] and [`config`] say what to do, [`commands`] does it, [`harden`] protects the process, [`app`] wires the parts, [`listeners`] binds
//! and reloads, [`tls`] and [`shutdown`] are shared by the listeners of [`api`], [`logs`] tells what happened, [`metrics`] counts it.
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
