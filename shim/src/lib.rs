//! What `devbox-exec` decides, apart from the kernel: no system call, no `std`, no allocation, no unsafe code.
//!
//! - [`options`]: the command line, and the request that it makes;
//! - [`address`]: where the daemon listens;
//! - [`payload`]: the daemon's answer, believed only after a check;
//! - [`environment`]: the command's environment, pointers into what the kernel and the daemon wrote;
//! - [`limits`]: what `execve(2)` has room for;
//! - [`search`]: where the command may lie;
//! - [`failure`]: every way to fail, its line and its exit status;
//! - [`wait`]: how long it tries;
//! - [`mod@line`]: one line for a person, whatever bytes go into it;
//! - [`help`]: the manual.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod environment;
pub mod failure;
pub mod help;
pub mod limits;
pub mod line;
pub mod options;
pub mod payload;
pub mod search;
mod settings;
pub mod wait;

#[cfg(test)]
extern crate std;
