//! The ground that every program of ours runs on.
//!
//! - [`log_writer`]: standard error behind a bounded queue, so that no log line ever blocks the program;
//! - [`secret_file`]: which permissions keep a secret file from others.
#![forbid(unsafe_code)]

pub mod log_writer;
pub mod secret_file;
