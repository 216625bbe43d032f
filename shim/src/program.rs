//! The part of `devbox-exec` that talks to the kernel.
//!
//! - [`command`]: becomes the command;
//! - [`kernel`]: system calls and the entry point; all unsafe code is there;
//! - [`abi`]: the kernel's numbers and structures.

mod abi;
pub(crate) mod command;
pub(crate) mod kernel;
