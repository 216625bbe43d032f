//! What every program of ours runs on.
//!
//! - [`log_writer`]: standard error behind a bounded queue, so that no log line ever blocks the program.
#![forbid(unsafe_code)]

pub mod log_writer;
