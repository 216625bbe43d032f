//! Which process may have which variables.
//!
//! - [`peer`]: the process at the other end of a socket, by what the kernel reports about it;
//! - [`glob`]: patterns of names;
//! - [`policy`]: the rules, and what they grant a process.

pub mod glob;
pub mod peer;
pub mod policy;
