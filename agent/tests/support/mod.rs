//! A control plane for tests: real TLS, real certificates, real HPKE; only its answers are scripted.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod control_plane;
pub mod daemon;
pub mod launch;

use std::time::Duration;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(30);
