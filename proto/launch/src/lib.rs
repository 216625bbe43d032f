//! The launch protocol between `devbox-exec` and `devbox-secretsd` over `launch.sock`, a Unix stream socket. One request and one answer a connection; no `std`, no allocation, no I/O, no secret.
//!
//! All numbers are little-endian: both ends run on one machine.
//!
//! ```text
//! request = "DXRQ"  version:u8  flags:u8  0:u16  wait in ms:u32  length:u32  item*          (16 bytes, then `length`)
//! item    = kind:u8  length:u16  text
//! answer  = "DXAN"  version:u8  kind:u8  error:u16  count:u32  length:u32  payload?         (16 bytes)
//! ```
//!
//! - *descriptor*: the first byte of the answer carries one descriptor (`SCM_RIGHTS`), a `memfd_secret(2)` made for this
//!   launch, whose first `length` bytes are `count` strings `NAME=VALUE\0`, in ascending order of name. No payload.
//!   The byte after the strings is their [mark](WITHDRAWN). A daemon of version 0.1 may send a file without one.
//! - *inline*: the same `length` bytes follow as payload, if `memfd_secret` is unavailable or the launcher cannot map it.
//! - *names*: `length` bytes of `count` strings `NAME\0` follow, in ascending order.
//! - *error*: `length` bytes of UTF-8 text, one line without control characters, follow: the problem and its remedy.
//!
//! A launcher that waits asks again after an error whose code [may pass](ErrorCode::may_pass), and after a closed connection.
//!
//! # Withdrawing a descriptor
//!
//! The kernel does not take back a descriptor that was sent, so the daemon withdraws an unread answer by wiping the strings.
//! The launcher may read the answer at that very moment. These two orders keep it from running a command with wiped strings:
//!
//! ```text
//! daemon                                      launcher
//! 1. sets the mark; full fence                1. receives the answer
//! 2. asks whether the answer is unread        2. indexes the strings; full fence
//! 3. unread: wipes the strings, not the mark  3. reads the mark: set means withdrawn
//!    read: leaves everything as it is
//! ```
//!
//! If the daemon's step 2 finds the answer unread, the launcher receives it later than the mark was set, so its step 3 finds
//! the mark. If step 2 finds the answer read, nothing is wiped. The launcher may find the mark all the same, and asks again:
//! the daemon had a reason to withdraw the strings. The mark is never cleared, because no launcher could tell when.
//!
//! A later version keeps the first five bytes of both messages, so that each side can name a mismatch.
#![no_std]
#![forbid(unsafe_code)]

mod answer;
mod request;
mod variable;

pub use answer::{Answer, AnswerHeader, ErrorCode, InvalidAnswer, MAX_ERROR_LEN, WITHDRAWN, marked_len};
pub use request::{
    Flags, InvalidRequest, Item, Items, MAX_REQUEST_BODY, RequestBuilder, RequestHeader, RequestTooLarge,
};
pub use variable::{LARGEST_ROOM, MAX_ARG_STRLEN, MAX_NAME_LEN, is_name, leading_name};

/// The daemon's launch socket, unless a configuration or an option names another.
pub const LAUNCH_SOCKET: &str = "/run/devbox-secrets/launch.sock";

/// Longest wait that a launcher may ask for, in milliseconds: a day.
pub const MAX_WAIT_MS: u32 = 86_400_000;

/// The protocol's version.
pub const VERSION: u8 = 1;

/// Length of either header, in bytes.
pub const HEADER_LEN: usize = 16;

fn u16_at(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
