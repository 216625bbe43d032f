//! The server as its clients see it: real sockets, real TLS, the real program.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod admin;
mod budgets;
mod ca_rotation;
mod devbox_listener;
mod devboxes_api;
mod log_stall;
mod master_key;
mod memory;
mod no_echo;
mod openapi;
mod program;
mod public_tls;
mod reload;
mod retries;
mod secrets_api;
mod support;
mod upkeep;
mod wire;
