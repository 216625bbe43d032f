//! The Unix sockets on which processes of this devbox are served.
//!
//! - `accept`: the accept loop of all of them;
//! - [`launch`]: variables, for `devbox-exec`;
//! - [`credentials`]: credentials of units, for systemd;
//! - [`admin`]: health, status and commands, for operators;
//! - [`reload`]: changed rules, for all of them.

mod accept;
pub mod admin;
pub mod credentials;
pub mod launch;
pub mod reload;
