//! The secrets in locked memory ([`sys`](crate::sys) makes it), the only place that ever holds a plaintext.
//!
//! - [`Generation`] is one bundle, decrypted in place into one mapping; [`Vault`] is what the daemon has right now, and until
//!   when it may serve it.
//! - [`Pool`] prepares pages for launches.

mod generation;
mod pool;
mod vault;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use generation::{BlankGeneration, Generation, GenerationError, Variable};
pub(crate) use pool::Pool;
pub use vault::{Holding, Loss, Unavailable, Vault};
