//! Every devbox comes back at once: the server is killed and started again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;

use super::crowd::Crowd;
use super::waves::until_all_hold;
use super::{World, kept};
use crate::figures::quantile;
use crate::process::{cpu_time, peak_bytes};
use crate::{VALUE_LEN, mebibytes, milliseconds};
use xtask::programs::Server;

/// Between two calls of the API meanwhile.
const CALL_EVERY: Duration = Duration::from_millis(20);

/// How it went. Times count from when the new server was ready.
#[derive(Debug)]
pub(super) struct Herd {
    devboxes: usize,
    /// From the kill to the server's ready line, in milliseconds.
    down: f64,
    /// Until every request was held again, in milliseconds.
    all_held: f64,
    /// Until every devbox had a write that came as soon as the server was ready; `None` if there was no write.
    all_have: Option<f64>,
    /// Calls of the API meanwhile, and the slowest one, in milliseconds.
    calls: usize,
    slowest_call: f64,
    /// Of the server, for each connection.
    cpu_us: f64,
    peak: u64,
}

/// Kills the server that `world` is connected to. Where `write`, a secret is stored as soon as it is back.
pub(super) fn measure(world: &mut World<'_>, write: bool) -> Result<Herd> {
    until_all_hold(&world.server, &world.crowd)?;
    let killed = Instant::now();
    world.server.kill_and_start(world.programs, world.directory)?;
    let ready = Instant::now();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| call_until(&world.server, &done));
        let outcome = settle(&world.server, &mut world.crowd, write);
        let all_held = milliseconds(ready.elapsed());
        done.store(true, Ordering::Relaxed);
        let mut calls = calls.join().map_err(|_| anyhow!("the caller panicked"))??;
        let devboxes = world.crowd.len();
        let cpu = cpu_time(world.server.pid())?.as_secs_f64() * 1e6;
        Ok(Herd {
            devboxes,
            down: milliseconds(ready.duration_since(killed)),
            all_held,
            all_have: outcome?,
            calls: calls.len(),
            slowest_call: quantile(&mut calls, 1.0),
            cpu_us: cpu / devboxes as f64,
            peak: peak_bytes(world.server.pid())?,
        })
    })
}

fn settle(server: &Server, crowd: &mut Crowd, write: bool) -> Result<Option<f64>> {
    let mut all_have = None;
    if write {
        server.create_secret("FLEET_HERD", &"v".repeat(VALUE_LEN))?;
        let acknowledged = Instant::now();
        crowd.revision += 1;
        all_have = Some(quantile(&mut crowd.gather(acknowledged)?, 1.0));
    }
    until_all_hold(server, crowd)?;
    Ok(all_have)
}

/// How long each call took, in milliseconds.
fn call_until(server: &Server, done: &AtomicBool) -> Result<Vec<f64>> {
    let mut calls = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        server.describe_secret(&kept(0))?;
        calls.push(milliseconds(started.elapsed()));
        std::thread::sleep(CALL_EVERY);
    }
    Ok(calls)
}

impl Herd {
    fn connections_per_second(&self) -> f64 {
        self.devboxes as f64 / self.all_held * 1e3
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "devboxes": self.devboxes, "down_ms": self.down, "all_held_ms": self.all_held,
            "all_have_ms": self.all_have, "connections_per_second": self.connections_per_second(),
            "api_calls": self.calls, "slowest_api_call_ms": self.slowest_call,
            "server_cpu_us_per_connection": self.cpu_us, "server_peak_bytes": self.peak,
        })
    }
}

impl fmt::Display for Herd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devboxes, down, all_held, calls, slowest_call, cpu_us, .. } = self;
        write!(
            f,
            "{devboxes} come back (killed, ready after {down:.0} ms): all held after {all_held:.0} ms, "
        )?;
        if let Some(all_have) = self.all_have {
            write!(f, "a write meanwhile is everywhere {all_have:.0} ms after it was acknowledged, ")?;
        }
        write!(
            f,
            "{:.0} connections a second, {cpu_us:.0} µs of the server each; ",
            self.connections_per_second()
        )?;
        write!(f, "{calls} API calls, the slowest {slowest_call:.0} ms; peak {:.1} MiB", mebibytes(self.peak))
    }
}
