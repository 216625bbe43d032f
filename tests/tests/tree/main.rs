//! The checkout itself: its words, its documents, the help that its programs print, and the order of its modules.
//!
//! A subject alone: `cargo test --workspace --test tree prose::`.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod configuration;
mod documents;
mod files;
mod help;
mod module_order;
mod prose;
mod rust_text;
mod source;
