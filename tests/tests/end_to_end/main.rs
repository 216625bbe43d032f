//! The promises of the whole: the real server, daemon and shim, started as a user would start them.
//!
//! One executable, so that tests of different subjects run beside each other and the programs are linked once. A subject
//! alone: `cargo test -p devbox-secrets-tests --test end_to_end launch::`.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod api_fuzzer;
mod canary;
mod confinement;
mod devbox_listener;
mod devboxes_api;
mod durability;
mod expiry;
mod hardening;
mod hostile_crowds;
mod hostile_peers;
mod intruders;
mod launch;
mod launch_changes;
mod launch_policy;
mod official_sdks;
mod secrets_api;
mod secrets_api_refusals;
mod secrets_api_tenants;
mod wrong_world;
