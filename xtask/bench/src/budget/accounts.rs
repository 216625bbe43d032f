//! Two accounts on one server: calls and deliveries of the one while the other uses up one budget after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;

use super::attack::{Attack, Attacker};
use super::{Proof, Row, Work};
use crate::fleet::crowd::Crowd;
use crate::{VALUE_LEN, milliseconds};
use xtask::build::Programs;
use xtask::programs::Server;

/// Small enough that the attacker is at its budgets within seconds.
const LIMITS: &str = "secrets_per_account = 64\nvalue_bytes_per_account = 1_048_576\nrequests_burst = 400\n";
/// Under the attacker's bundle, and over the other account's.
const SMALL_BUNDLES: &str = "bundle_bytes = 65_536\n";
/// Until an attack has reached its budget.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at its counter.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two writes: within the devbox's budget of bundles, and longer than a daemon pauses after a change.
const WRITE_EVERY: Duration = Duration::from_millis(150);
/// Calls that list, for each write.
const LISTS: usize = 3;
const CHANGING: &str = "BUDGET_CHANGING";

/// The attacked server, and the account whose work is measured.
struct World {
    /// With the token of the measured account.
    server: Server,
    /// The measured account's one devbox.
    devbox: Crowd,
    writes: usize,
}

/// Durations in milliseconds.
#[derive(Default)]
struct Samples {
    lists: Vec<f64>,
    writes: Vec<f64>,
    deliveries: Vec<f64>,
}

/// Measures each attack beside a rest of its own.
pub(super) fn measure(programs: &Programs, directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    let server = Server::serve(programs, directory, "measured", LIMITS)?;
    let mut devbox = Crowd::join(&server, 1)?;
    devbox.grow(1)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let token = server.create_account(programs, directory, "attacker")?;
    let attacker = runtime.block_on(Attacker::prepare(&server, token))?;
    let mut world = World { server, devbox, writes: 0 };
    let mut rows = Vec::new();
    for attack in Attack::ALL {
        if attack == Attack::LargeBundle {
            world.server.reload(directory, &format!("{LIMITS}{SMALL_BUNDLES}"))?;
        }
        rows.push(world.row(&runtime, &attacker, attack, rounds)?.shown());
    }
    Ok(rows)
}

impl World {
    fn row(&mut self, runtime: &Runtime, attacker: &Attacker, attack: Attack, rounds: usize) -> Result<Row> {
        let mut rest = self.work(rounds)?;
        let counter = attack.counter();
        let before = self.server.metric(counter)?;
        let running = attacker.start(runtime, attack);
        let reached = self.until_over(counter, before).with_context(|| attack.name())?;
        let mut attacked = self.work(rounds).with_context(|| format!("work under {}", attack.name()))?;
        let proof = Proof::new(attack.name(), counter, [reached, self.server.metric(counter)?], rounds)?;
        drop(running);
        let work = vec![
            Work::new("list", &mut rest.lists, &mut attacked.lists),
            Work::new("write", &mut rest.writes, &mut attacked.writes),
            Work::new("delivery", &mut rest.deliveries, &mut attacked.deliveries),
        ];
        Ok(Row { attack: attack.name(), work, proof })
    }

    /// Waits until the attack has reached its budget: the counter's sample then.
    fn until_over(&self, counter: &str, before: u64) -> Result<u64> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let refused = self.server.metric(counter)?;
            if refused > before {
                return Ok(refused);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("void, because {counter} did not rise in {} s", PATIENCE.as_secs())
    }

    fn work(&mut self, rounds: usize) -> Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..rounds {
            std::thread::sleep(WRITE_EVERY);
            for _ in 0..LISTS {
                samples.lists.push(timed(|| self.server.list_secrets())?);
            }
            samples.writes.push(timed(|| self.write())?);
            let acknowledged = Instant::now();
            self.writes += 1;
            self.devbox.revision += 1;
            samples.deliveries.extend(self.devbox.gather(acknowledged)?);
        }
        Ok(samples)
    }

    /// Created, updated, deleted, and again.
    fn write(&self) -> Result<()> {
        let value = format!("{:0VALUE_LEN$}", self.writes);
        match self.writes % 3 {
            0 => self.server.create_secret(CHANGING, &value),
            1 => self.server.update_secret(CHANGING, &value),
            _ => self.server.delete_secret(CHANGING),
        }
    }
}

fn timed(call: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    call()?;
    Ok(milliseconds(started.elapsed()))
}
