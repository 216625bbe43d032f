//! `devbox-secretsd`: the privileged daemon in a devbox. It fetches the devbox's sealed bundle from the control plane,
//! holds the plaintext in locked memory, and hands each launch what the policy grants its process.
//!
//! - [`config`]: the configuration file, checked whole; [`app`]: the parts, wired;
//! - [`identity`]: who this devbox is to the control plane; [`control_plane`]: the connection to it;
//! - [`sync`]: keeps the bundle current, and ends service when it cannot;
//! - [`freshness`]: whether it is current, checked before each answer;
//! - [`machine`]: whether this is still the machine that it started on;
//! - [`restart`]: what a successor finds in the service manager's store;
//! - [`memory`]: the only pages that hold a plaintext;
//! - [`local_api`]: the sockets for launches and for systemd's credentials;
//! - [`access`]: which process may have which variables: its peer and the policy;
//! - [`admin`]: health and status on a local socket; [`telemetry`]: logs, the audit and the service manager;
//! - [`metrics`]: what operators see in numbers; [`reload`]: changed rules;
//! - [`harden`]: closes the process before it reads a secret; [`socket`]: Unix sockets.

pub mod access;
pub mod admin;
pub mod alarm;
pub mod app;
pub mod config;
pub mod control_plane;
#[cfg(test)]
mod denied;
mod descriptor;
mod file_events;
pub mod freshness;
pub mod harden;
pub mod identity;
pub mod local_api;
pub mod machine;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod needs;
mod off_thread;
pub mod reload;
pub mod restart;
pub mod socket;
mod stamp;
pub mod sync;
pub mod sys;
pub mod telemetry;
mod wildcard;
