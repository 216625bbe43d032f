//! `devbox-secretsd`: the privileged daemon in a devbox. It fetches the devbox's sealed bundle from the control plane,
//! holds the plaintext in locked memory, and hands each launch what the policy grants its process.
//!
//! The modules, from the top down; each uses only those below it (`tests/tests/tree/module_order.rs` checks this):
//!
//! - [`app`]: wires the parts
//! - [`local_api`]: the sockets for launches, systemd's credentials and operators
//! - [`config`]: the configuration file, checked whole
//! - [`status`]: what operators may know, as JSON, table and gauges
//! - [`sync`]: keeps the bundle current, and ends service when it cannot
//! - [`restart`]: keeps the state for a successor in the service manager's store
//! - [`harden`]: closes the process before it reads a secret
//! - [`identity`]: this devbox's certificate and key
//! - [`control_plane`]: the connection to the server
//! - [`freshness`]: checks before each response that the bundle is current
//! - [`metrics`]: counters and histograms
//! - [`access`]: decides which variables a process may have, from its peer and the policy
//! - [`memory`]: the secrets in locked memory, the only place that holds a plaintext
//! - [`machine`]: whether this is still the machine that the daemon started on
//! - [`telemetry`]: logs, the audit and the service manager
//! - [`socket`]: Unix sockets
//! - [`sys`]: what is unsafe or shaped by the kernel: locked pages, descriptors, clocks, files, threads

pub mod access;
pub mod app;
pub mod config;
pub mod control_plane;
pub(crate) mod freshness;
pub mod harden;
pub mod identity;
pub mod local_api;
pub(crate) mod machine;
pub mod memory;
pub mod metrics;
pub mod restart;
pub(crate) mod socket;
pub mod status;
pub mod sync;
pub mod sys;
pub mod telemetry;
