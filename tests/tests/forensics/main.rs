//! No leaks: the real programs, and every place where the operating system could have kept a value.
//!
//! A subject alone: `cargo test -p devbox-secrets-tests --test forensics trace::`. The subject of each search is shown to be
//! findable in the same test: a search that cannot fail proves nothing.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod control_plane_memory;
mod cores;
mod devbox_memory;
mod readers;
mod support;
mod swap;
mod trace;
