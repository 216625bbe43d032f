//! Which process may have which variables.
//!
//! - [`authorize`]: the decision about one process; [`explain`]: the same with its reasons, for people;
//! - [`peer`]: the process at the other end of a socket, by what the kernel reports about it;
//! - [`glob`]: patterns of names;
//! - [`policy`]: the rules, and what they grant a process.

pub(crate) mod authorize;
pub mod explain;
pub mod glob;
pub mod peer;
pub mod policy;

#[cfg(test)]
mod tests;
