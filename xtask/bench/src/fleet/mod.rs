//! Many devboxes of one account on one server: how soon a write is in each of them, what each costs the server, and what
//! happens when all come back at once.
//!
//! - [`devbox`]: one of them, the daemon's own poller; [`crowd`]: many, in this process, so that both ends share the machine;
//! - [`waves`]: a write and its way into each; [`idle`]: what they cost between two; [`herd`]: the server is killed, and everybody comes back.

pub(super) mod crowd;
pub(super) mod devbox;
mod herd;
mod idle;
mod waves;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use devbox_secrets_proto::seal::{BundleKey, Context, Sealer};
use serde_json::{Value, json};

use super::figures::median;
use super::process::resident_bytes;
use super::{VALUE_LEN, milliseconds};
use crowd::Crowd;
use idle::Idle;
use waves::{BROKEN_MS, Step};
use xtask::build::Programs;
use xtask::programs::{Daemon, Server};

/// The first number of devboxes; each next one is twice as many.
const FIRST: usize = 250;
/// The number of devboxes in the promise; idle devboxes and herds are measured with it.
const PROMISED: usize = 1_000;
/// Secrets of the account that never change.
const SECRETS: usize = 10;
/// Encapsulations for the baseline.
const ENCAPSULATIONS: usize = 1_000;

/// A server, a real daemon, and many devboxes.
#[derive(Debug)]
struct World<'a> {
    programs: &'a Programs,
    directory: &'a Path,
    crowd: Crowd,
    daemon: Daemon,
    server: Server,
}

/// Takes up to `most` devboxes, until a write takes a second. `directory` is empty and of this bench alone.
pub(super) fn measure(programs: &Programs, directory: &Path, most: usize) -> Result<Value> {
    println!("\nFleet: {most} devboxes of one account, each with {SECRETS} secrets of {VALUE_LEN} bytes");
    let mut world = World::begin(programs, directory, most)?;
    let encapsulation = encapsulation()?;
    println!("From an acknowledged write to the new generation, in ms; processor time for each, in µs; MiB");
    println!("{}", waves::HEADING);
    let (steps, idle) = world.climb(most)?;
    println!(
        "Aim: p99 under {BROKEN_MS:.0} ms with {PROMISED}. Encapsulating one bundle's key alone: {encapsulation:.0} µs"
    );
    println!("{idle}");
    world.crowd.shrink(PROMISED);
    let herds = [herd::measure(&mut world, false)?, herd::measure(&mut world, true)?];
    herds.iter().for_each(|herd| println!("{herd}"));
    let steps: Vec<Value> = steps.iter().map(Step::to_json).collect();
    let herds = herds.map(|herd| herd.to_json());
    Ok(json!({ "steps": steps, "idle": idle.to_json(), "herds": herds, "encapsulation_us": encapsulation }))
}

impl<'a> World<'a> {
    /// One real daemon polls already.
    fn begin(programs: &'a Programs, directory: &'a Path, most: usize) -> Result<Self> {
        let server = Server::start(programs, directory)?;
        (0..SECRETS).try_for_each(|i| server.create_secret(&kept(i), &"v".repeat(VALUE_LEN)))?;
        let started = Instant::now();
        let crowd = Crowd::join(&server, most)?;
        let each = milliseconds(started.elapsed()) / most as f64;
        println!("Registered and enrolled in {each:.1} ms each");
        let daemon = Daemon::start(programs, directory, &server, &server.create_devbox("daemon")?)?;
        Ok(Self { programs, directory, crowd, daemon, server })
    }

    /// More and more devboxes, at least the promised number, until a write takes too long; what the promised number cost at rest.
    fn climb(&mut self, most: usize) -> Result<(Vec<Step>, Idle)> {
        let (promised, unloaded) = (PROMISED.min(most), resident_bytes(self.server.pid())?);
        let mut steps = Vec::new();
        for count in sizes(promised) {
            steps.push(self.step(count)?);
        }
        let idle = Idle::measure(&self.server, promised, unloaded)?;
        for count in sizes(most).into_iter().filter(|count| *count > promised) {
            if steps.last().is_some_and(Step::is_broken) {
                break;
            }
            match self.step(count) {
                Ok(step) => steps.push(step),
                Err(error) => {
                    println!("{count:>8} broken: {error:#}");
                    break;
                }
            }
        }
        Ok((steps, idle))
    }

    fn step(&mut self, count: usize) -> Result<Step> {
        self.crowd.grow(count)?;
        let step = waves::measure(&self.server, &self.daemon, &mut self.crowd)?;
        println!("{step}");
        Ok(step)
    }
}

/// One alone, then doubling from [`FIRST`], and `most` itself last.
fn sizes(most: usize) -> Vec<usize> {
    let doubling = std::iter::successors(Some(FIRST), |size| Some(size * 2)).take_while(|size| *size < most);
    [1].into_iter().chain(doubling).chain((most > 1).then_some(most)).collect()
}

fn kept(index: usize) -> String {
    format!("FLEET_SECRET_{index}")
}

/// The least cost of a bundle to the server, in microseconds: the median of encapsulating a key, in this process.
fn encapsulation() -> Result<f64> {
    let key = BundleKey::generate();
    let context = Context { devbox_id: "dbx_1", revision: 1, count: 1 };
    let once = |_| -> Result<f64> {
        let started = Instant::now();
        Sealer::new(key.public_key(), context)?;
        Ok(started.elapsed().as_secs_f64() * 1e6)
    };
    Ok(median(&mut (0..ENCAPSULATIONS).map(once).collect::<Result<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_is_the_one_that_was_asked_for() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(20), [1, 20]);
        assert_eq!(sizes(1_000), [1, 250, 500, 1_000]);
        assert_eq!(sizes(1_500), [1, 250, 500, 1_000, 1_500]);
    }
}
