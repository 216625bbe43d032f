//! The real programs while things go wrong, each fault made for real: secrets are served within their lease, and never after it.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod ca_rotation;
mod clocks;
mod clones;
mod crowds;
mod disks;
mod held_requests;
mod idle;
mod impostors;
mod kills;
mod network;
mod observability;
mod revocation;
mod server_faults;
mod support;
mod suspension;
mod virtual_machines;
