//! The cost of idle devboxes to the server.

use std::fmt;

use anyhow::Result;
use serde_json::json;

use super::devbox::PACE;
use crate::process::{cpu_time, resident_bytes};
use xtask::programs::Server;

/// Held requests, each of which is renewed once while they are watched.
#[derive(Debug)]
pub(super) struct Idle {
    devboxes: usize,
    /// Processor time of the server for each devbox, in microseconds.
    cpu_us: f64,
    /// Memory of the server for each devbox, in bytes.
    resident: f64,
}

impl Idle {
    /// Watches for as long as a request is held. `unloaded`: what was resident before the devboxes came.
    pub(super) fn measure(server: &Server, devboxes: usize, unloaded: u64) -> Result<Self> {
        let before = cpu_time(server.pid())?;
        std::thread::sleep(PACE.poll_wait);
        let spent = cpu_time(server.pid())? - before;
        let grown = resident_bytes(server.pid())?.saturating_sub(unloaded);
        let each = devboxes as f64;
        Ok(Self { devboxes, cpu_us: spent.as_secs_f64() * 1e6 / each, resident: grown as f64 / each })
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "devboxes": self.devboxes, "held_s": PACE.poll_wait.as_secs(),
            "server_cpu_us_per_devbox": self.cpu_us, "server_resident_bytes_per_devbox": self.resident,
        })
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devboxes, cpu_us, resident } = self;
        let (held, kibibytes) = (PACE.poll_wait.as_secs(), resident / 1024.0);
        write!(
            f,
            "{devboxes} at rest: {cpu_us:.0} µs of the server for each in {held} s, in which its request "
        )?;
        write!(f, "is renewed once; {kibibytes:.1} KiB resident for each")
    }
}
