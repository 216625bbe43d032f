//! A write and its way into every devbox.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use nix::unistd::Pid;
use serde_json::json;

use super::crowd::{Crowd, PATIENCE};
use crate::figures::{median, quantile};
use crate::process::{cpu_time, resident_bytes};
use crate::{VALUE_LEN, mebibytes, milliseconds};
use xtask::programs::{Daemon, Server};

/// Writes for one number of devboxes: each kind in turn.
const WRITES: usize = 15;
/// The secret that comes, changes and goes.
const CHANGING: &str = "FLEET_CHANGING";
/// Between two looks at the server's metrics.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks at the daemon's status: what its latency is blurred by.
const ASK_DAEMON_EVERY: Duration = Duration::from_millis(5);

/// The promise is broken where a write takes so long, in milliseconds, to one devbox in a hundred.
pub(super) const BROKEN_MS: f64 = 1_000.0;

pub(super) const HEADING: &str = "devboxes      p50      p99      max   daemon   server  devboxes  resident";

/// The measurements with one number of devboxes.
#[derive(Debug)]
pub(super) struct Step {
    devboxes: usize,
    /// From the acknowledged write to the devbox's new generation, in milliseconds.
    p50: f64,
    p99: f64,
    max: f64,
    /// As above; the real daemon's worst.
    daemon: f64,
    /// Processor time of a bundle, from the write until the devbox is held again, in microseconds.
    server_us: f64,
    devbox_us: f64,
    resident: u64,
}

/// Makes [`WRITES`] writes, each when everybody waits for it.
pub(super) fn measure(server: &Server, daemon: &Daemon, crowd: &mut Crowd) -> Result<Step> {
    until_all_hold(server, crowd)?;
    let before = cpu_times(server)?;
    let (mut delays, mut daemon_delays) = (Vec::with_capacity(WRITES * crowd.len()), Vec::new());
    for turn in 0..WRITES {
        let (every_delay, daemon_delay) = wave(server, daemon, crowd, turn)?;
        delays.extend(every_delay);
        daemon_delays.push(daemon_delay);
        until_all_hold(server, crowd)?;
    }
    let bundles = WRITES * (crowd.len() + 1);
    let [server_us, devbox_us] = per_bundle(before, cpu_times(server)?, bundles);
    Ok(Step {
        devboxes: crowd.len(),
        p50: median(&mut delays),
        p99: quantile(&mut delays, 0.99),
        max: quantile(&mut delays, 1.0),
        daemon: quantile(&mut daemon_delays, 1.0),
        server_us,
        devbox_us,
        resident: resident_bytes(server.pid())?,
    })
}

/// The delay of each devbox, and the real daemon's.
fn wave(server: &Server, daemon: &Daemon, crowd: &mut Crowd, turn: usize) -> Result<(Vec<f64>, f64)> {
    write(server, turn)?;
    let acknowledged = Instant::now();
    crowd.revision += 1;
    let revision = crowd.revision;
    std::thread::scope(|scope| {
        let daemon = scope.spawn(move || until_held_by(daemon, revision, acknowledged));
        let delays = crowd.gather(acknowledged)?;
        let daemon = daemon.join().map_err(|_| anyhow!("the look at the daemon panicked"))??;
        Ok((delays, daemon))
    })
}

/// Created, updated, deleted, and again.
fn write(server: &Server, turn: usize) -> Result<()> {
    let value = format!("{turn:0VALUE_LEN$}");
    match turn % 3 {
        0 => server.create_secret(CHANGING, &value),
        1 => server.update_secret(CHANGING, &value),
        _ => server.delete_secret(CHANGING),
    }
}

fn until_held_by(daemon: &Daemon, revision: u64, since: Instant) -> Result<f64> {
    while daemon.revision()?.is_none_or(|held| held < revision) {
        ensure!(since.elapsed() < PATIENCE, "the daemon does not come to revision {revision}");
        std::thread::sleep(ASK_DAEMON_EVERY);
    }
    Ok(milliseconds(since.elapsed()))
}

/// Returns once the requests of all devboxes and of the real daemon are held.
pub(super) fn until_all_hold(server: &Server, crowd: &Crowd) -> Result<()> {
    let (all, deadline) = (crowd.len() + 1, Instant::now() + PATIENCE);
    loop {
        let held = server.held_requests()?;
        if held == all {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{held} of {all} requests are held after {} s",
            PATIENCE.as_secs()
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Of the server, and of this process with its devboxes.
fn cpu_times(server: &Server) -> Result<[Duration; 2]> {
    Ok([cpu_time(server.pid())?, cpu_time(Pid::this())?])
}

/// Microseconds of each process for one of `bundles`.
fn per_bundle(before: [Duration; 2], after: [Duration; 2], bundles: usize) -> [f64; 2] {
    [0, 1].map(|process| (after[process] - before[process]).as_secs_f64() * 1e6 / bundles as f64)
}

impl Step {
    pub(super) fn is_broken(&self) -> bool {
        self.p99 >= BROKEN_MS
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "devboxes": self.devboxes, "p50_ms": self.p50, "p99_ms": self.p99, "max_ms": self.max,
            "daemon_max_ms": self.daemon, "server_cpu_us_per_bundle": self.server_us,
            "devbox_cpu_us_per_bundle": self.devbox_us, "server_resident_bytes": self.resident,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devboxes, p50, p99, max, daemon, server_us, devbox_us, resident } = self;
        let resident = mebibytes(*resident);
        write!(f, "{devboxes:>8} {p50:>8.0} {p99:>8.0} {max:>8.0} {daemon:>8.0} ")?;
        write!(f, "{server_us:>8.0} {devbox_us:>9.0} {resident:>9.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_shared_out_to_every_bundle() {
        let [before, after] = [[1, 2], [2, 4]].map(|seconds| seconds.map(Duration::from_secs));
        assert_eq!(per_bundle(before, after, 1_000), [1_000.0, 2_000.0]);
    }
}
