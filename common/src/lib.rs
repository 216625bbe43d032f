//! The ground that every program of ours runs on.
//!
//! - [`config`]: configuration files, with every mistake reported at once;
//! - [`log`]: log lines, and standard error behind a bounded queue, so that no line ever blocks the
//!   program;
//! - [`process`]: the first protections of a process;
//! - [`secret_file`]: which permissions keep a secret file from others;
//! - [`tcp`]: noticing that a connection's other end is gone;
//! - [`verify_signatures_with`]: the part of a TLS verifier that never differs;
//! - [`text`]: text from outside on one line, errors with their causes.
#![forbid(unsafe_code)]

pub mod config;
pub mod log;
pub mod process;
pub mod secret_file;
pub mod tcp;
pub mod text;
mod tls;
