//! The ground that every program of ours runs on.
//!
//! - [`config`]: configuration files, with every mistake reported at once;
//! - [`log_writer`]: standard error behind a bounded queue, so that no log line ever blocks the program;
//! - [`secret_file`]: which permissions keep a secret file from others;
//! - [`tcp`]: noticing that a connection's other end is gone;
//! - [`text`]: text from outside on one line.
#![forbid(unsafe_code)]

pub mod config;
pub mod log_writer;
pub mod secret_file;
pub mod tcp;
pub mod text;
