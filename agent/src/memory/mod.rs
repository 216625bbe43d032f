//! The only memory that ever holds a plaintext.
//!
//! - [`SecretMemory`] asks the kernel once what it can do: `memfd_secret(2)` pages, which the kernel itself cannot read
//!   and which are never swapped or dumped; else `mlock(2)` pages outside core dumps that a fork wipes.
//! - [`LockedPages`] is one such mapping, page-rounded, touched when it is made, wiped when it is dropped.
//! - [`Generation`] is one bundle, decrypted in place into one mapping; [`Vault`] is what the daemon holds right now.
//! - [`LaunchPages`] is a mapping whose descriptor goes to one launch; [`Pool`] makes some ahead. [`SentPages`] are those of an
//!   answer that may not have been read yet ([`has_read_all`]).
//! - [`Inherited`] are the descriptors that the service manager passed.
//! - [`share_one_arena`] keeps the allocator from using up the limit of locked memory.
//!
//! All of the daemon's `unsafe` is in this module's `arenas.rs`, `pages.rs`, `inherited.rs` and `unread.rs`; the rest of it is safe code.

mod arenas;
mod error;
mod generation;
mod inherited;
mod pages;
mod pool;
mod secret_memory;
mod unread;
mod vault;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use arenas::share_one_arena;
pub use error::{LockLimit, MemoryError};
pub use generation::{BlankGeneration, Generation, GenerationError, Variable};
pub use inherited::Inherited;
pub use pages::{LaunchPages, LockedPages, SentPages};
pub use pool::Pool;
pub use secret_memory::{Backing, Requirement, SecretMemory};
pub use unread::has_read_all;
pub use vault::{Holding, Loss, Unavailable, Vault};
