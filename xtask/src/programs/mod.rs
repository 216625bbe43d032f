//! The real server and daemon as children, stopped by their process ids when they go out of scope.

mod daemon;
mod running;
mod server;

use anyhow::{Context, Result};

pub use daemon::Daemon;
pub use server::Server;

/// A whole number among `metrics` in the Prometheus text format; 0 if `name` has no sample yet.
fn sample(metrics: &str, name: &str) -> Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is not a whole number")))
}
