//! The part of `devbox-exec` that talks to the kernel.
//!
//! - [`daemon`]: asks for the secrets;
//! - [`command`]: becomes the command;
//! - [`kernel`]: system calls and the entry point; all unsafe code is there;
//! - [`abi`]: the kernel's numbers and structures.

mod abi;
pub(crate) mod command;
pub(crate) mod daemon;
pub(crate) mod kernel;
