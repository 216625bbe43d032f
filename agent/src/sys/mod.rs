//! The kernel's side of the daemon. All of the daemon's `unsafe` code is in this folder; each file that has some says why.
//!
//! - [`SecretMemory`] asks the kernel once which locked memory it has: `memfd_secret(2)` pages, which the kernel itself cannot
//!   read and which are never swapped or dumped; else `mlock(2)` pages outside core dumps that a fork wipes.
//! - [`LockedPages`] is one such mapping, page-rounded, present from the start, wiped when dropped. [`LaunchPages`] is one whose
//!   descriptor goes to a launch; [`SentPages`] are those of an answer that may not have been read yet ([`has_read_all`]).
//! - [`BootTime`] and [`now_ms`] are the two clocks; `Alarm` waits for either.
//! - [`Inherited`] are the descriptors that the service manager passed; `wait_for` waits for any descriptor.
//! - `FileEvents` and `Stamp` notice changed files.
//! - `off_thread` runs work that may block; [`share_one_arena`] keeps malloc from using up the limit of locked memory.

mod alarm;
mod clock;
mod descriptors;
mod file_changes;
mod memory_error;
mod pages;
mod secret_memory;
mod socket_queue;
mod threads;

#[cfg(test)]
pub(crate) mod test_support;

pub use alarm::Alarm;
pub(crate) use alarm::Ends;
pub use clock::{BootTime, now_ms};
pub(crate) use descriptors::Inherited;
pub(crate) use descriptors::{Owned, wait_for};
pub(crate) use file_changes::{FileEvents, Stamp};
pub(crate) use memory_error::MemoryError;
pub(crate) use pages::{LaunchPages, LockedPages, SentPages};
pub use secret_memory::{Backing, Requirement, SecretMemory};
pub(crate) use socket_queue::has_read_all;
pub(crate) use threads::off_thread;
pub use threads::share_one_arena;
