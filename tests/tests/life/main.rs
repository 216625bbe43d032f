//! The life of a secret while things go wrong: the real programs, each fault made for real.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod held_requests;
mod server_faults;
