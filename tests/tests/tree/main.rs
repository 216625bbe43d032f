//! The checkout itself: its words, its documents, and the help that its programs print.
//!
//! A subject alone: `cargo test --workspace --test tree prose::`.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod files;
mod prose;
mod rust_text;
