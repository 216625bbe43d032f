//! The Unix sockets on which processes of this devbox are served.
//!
//! - [`launch`]: variables, for `devbox-exec`;
//! - [`credentials`]: credentials of units, for systemd.

pub mod credentials;
pub mod launch;
