//! The decisions of `devbox-exec`, apart from the kernel: no system call, no `std`, no allocation, no unsafe code.
//!
//! - [`options`]: the command line, and the request that it makes;
//! - [`address`]: the daemon's socket;
//! - [`client`]: the launch protocol over a transport, for this program and others;
//! - [`payload`]: the daemon's answer, used only after a check;
//! - [`environment`]: the command's environment, pointers into what the kernel and the daemon wrote;
//! - [`limits`]: the room that `execve(2)` has;
//! - [`search`]: the search for the command in `PATH`;
//! - [`failure`]: every way to fail, its line and its exit status;
//! - [`wait`]: retries and their backoff;
//! - [`mod@line`]: a message of one line, whatever bytes it includes;
//! - [`help`]: the manual.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod environment;
pub mod failure;
pub mod help;
pub mod limits;
pub mod line;
pub mod options;
pub mod payload;
pub mod search;
mod settings;
pub(crate) mod wait;

pub use syscalls::Errno;

#[cfg(test)]
extern crate std;
