//! `cargo xtask bench`: what a launch costs, beside what it replaces, what many devboxes cost a server, and what one party's work costs
//! while another is over its budgets, in one run.
//!
//! Every time is a ratio to a baseline measured in turns with it, because machines are noisy: a launch against a bare
//! `execve` of the same command with the same environment, the daemon against a bare echo on the same kind of socket.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]

mod budget;
mod figures;
mod fleet;
mod launches;
mod plot;
mod process;
mod spawn;
mod throughput;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

use budget::Helper;
use figures::median;
use process::resident_bytes;
use xtask::build::{self, Profile, Programs};
use xtask::programs::{Daemon, Server};

/// Secrets in a launch.
const SIZES: [usize; 4] = [1, 10, 100, 1_000];
/// Bytes in each value.
const VALUE_LEN: usize = 64;
/// Secrets for the daemon's memory at its fullest.
const MANY: usize = 5_000;
/// Time without launches in which wakes are counted.
const IDLE: Duration = Duration::from_secs(60);
/// Time before it.
const SETTLED: Duration = Duration::from_secs(12);
/// Daemons started to time the boot.
const BOOTS: usize = 15;
/// From the program's start to its first secrets, over enrolling and fetching alone. AWS-LC's CPU jitter entropy, which
/// `.cargo/config.toml` leaves out, would make it 6.
const BOOT_AIM: f64 = 2.5;

/// Where the bench and what it launches run. The daemon too while launches are timed one by one, so that the figure has no
/// wake-up of another processor in it.
const LAUNCH_CPU: usize = 1;
/// Where the daemon runs while its throughput is measured, and the echo that it is compared with.
const SERVER_CPU: usize = 0;

/// Measure launches, throughput, memory, boot and size, as ratios against baselines of the same run, a fleet, and budgets under attack.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench", disable_help_subcommand = true)]
struct Options {
    #[command(subcommand)]
    helper: Option<Helper>,
    /// Also write every figure to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this part [default: all]
    #[arg(long)]
    part: Option<Part>,
    /// Launches of each kind and size
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    runs: usize,
    /// Most devboxes on one server; fewer where it breaks before
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = at_least_one)]
    fleet: usize,
    /// Rounds of work at rest and under each attack on a budget
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    rounds: usize,
}

/// Some of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One devbox: launches, throughput, boot, memory, size.
    Launch,
    /// Many devboxes on one server.
    Fleet,
    /// One account's and one user's work while another uses its budgets up; the users need root.
    Budget,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number above 0".to_owned())
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.helper {
        Some(helper) => budget::help(helper),
        None => run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what `options` ask for.
fn run(options: &Options) -> Result<()> {
    let programs = build::programs(Profile::Release)?;
    let directory = tempfile::Builder::new().prefix("devbox-secrets-bench-").tempdir()?;
    let is_asked = |part| options.part.is_none_or(|only| only == part);
    let mut figures = json!({});
    if is_asked(Part::Launch) {
        figures = one_devbox(&programs, directory.path(), options.runs)?;
    }
    if is_asked(Part::Fleet) {
        let directory = directory.path().join("fleet");
        std::fs::create_dir(&directory)?;
        figures["fleet"] = fleet::measure(&programs, &directory, options.fleet)?;
    }
    if is_asked(Part::Budget) {
        let directory = directory.path().join("budget");
        std::fs::create_dir(&directory)?;
        figures["budget"] = budget::measure(&programs, &directory, options.rounds)?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{figures:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn one_devbox(programs: &Programs, directory: &Path, runs: usize) -> Result<serde_json::Value> {
    let server = Server::start(programs, directory)?;
    let mut bench = Bench { programs, server: &server, directory, daemons: 0 };
    println!("Storing {} secrets of {VALUE_LEN} bytes over the API", SIZES[3]);
    bench.store(0..SIZES[3])?;
    let launches = bench.launches(runs)?;
    let throughput = bench.throughput()?;
    let boot = bench.boot()?;
    let memory = bench.memory()?;
    let idle = bench.idle()?;
    let shim_bytes = std::fs::metadata(&programs.shim)?.len();
    println!("\nShim: {:.1} KiB (aim: at most 64)", shim_bytes as f64 / 1024.0);
    let drawing = build::target_directory().join("bench/launch.svg");
    plot::draw(&drawing, &launches).context("the figure could not be drawn")?;
    println!("Drawn: {}", drawing.display());
    Ok(json!({
        "launches": launches.iter().map(launches::Row::to_json).collect::<Vec<_>>(),
        "throughput": throughput, "boot": boot, "memory": memory, "idle": idle, "shim_bytes": shim_bytes,
    }))
}

struct Bench<'a> {
    programs: &'a Programs,
    server: &'a Server,
    directory: &'a Path,
    daemons: usize,
}

impl Bench<'_> {
    fn store(&self, range: std::ops::Range<usize>) -> Result<()> {
        range.into_iter().try_for_each(|i| self.server.create_secret(&name(i), &"v".repeat(VALUE_LEN)))
    }

    /// A daemon of a new devbox that is bound to the first `count` secrets.
    fn daemon(&mut self, count: usize, cpu: usize) -> Result<Daemon> {
        self.daemons += 1;
        let directory = self.directory.join(format!("devbox-{}", self.daemons));
        std::fs::create_dir(&directory)?;
        let devbox = format!("bench-{}", self.daemons);
        let names: Vec<String> = (0..count).map(name).collect();
        // MANY are more bindings than one registration may have, and all the secrets there are.
        let join_token = match count {
            MANY => self.server.create_devbox(&devbox)?,
            _ => self.server.create_bound_devbox(&devbox, &names)?,
        };
        let daemon = Daemon::start(self.programs, &directory, self.server, &join_token)?;
        pin(daemon.pid(), cpu)?;
        Ok(daemon)
    }

    fn launches(&mut self, runs: usize) -> Result<Vec<launches::Row>> {
        println!(
            "\nLaunches of /usr/bin/true, {runs} of each kind in turns on one processor: median and p99 in µs, ratio to bare"
        );
        println!("{}", launches::HEADING);
        pin(Pid::this(), LAUNCH_CPU)?;
        let mut rows = Vec::new();
        for count in SIZES {
            let daemon = self.daemon(count, LAUNCH_CPU)?;
            let row = launches::measure(self.programs, &daemon, self.directory, count, runs)?;
            println!("{row}");
            rows.push(row);
        }
        println!("Aims: ratio 1.25 at 10 secrets, 1.35 at 1,000; of p99 1.6");
        Ok(rows)
    }

    fn throughput(&mut self) -> Result<serde_json::Value> {
        let daemon = self.daemon(10, SERVER_CPU)?;
        let daemon_rate = throughput::launches(&daemon.socket)?;
        let echo_rate = throughput::echoes(self.directory, SERVER_CPU)?;
        let ratio = daemon_rate / echo_rate;
        println!(
            "\nLaunches served a second (10 secrets): {daemon_rate:.0}; bare echo {echo_rate:.0}; ratio {ratio:.2}"
        );
        Ok(json!({ "launches_per_second": daemon_rate, "echoes_per_second": echo_rate, "ratio": ratio }))
    }

    fn boot(&mut self) -> Result<serde_json::Value> {
        let (mut ready, mut enroll, mut fetch, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BOOTS {
            let daemon = self.daemon(10, SERVER_CPU)?;
            let timings = daemon.status()?["timings"].clone();
            ready.push(milliseconds(daemon.ready_after));
            enroll.push(timings["enroll_ms"].as_f64().context("no timings in the status")?);
            fetch.push(timings["fetch_ms"].as_f64().context("no timings in the status")?);
            // Each start beside its own network part: a slow moment of the machine is in both.
            ratios.extend(ready.last().zip(enroll.last().zip(fetch.last())).map(|(r, (e, f))| r / (e + f)));
        }
        let (ready, enroll, fetch) = (median(&mut ready), median(&mut enroll), median(&mut fetch));
        let ratio = median(&mut ratios);
        println!(
            "\nBoot, median of {BOOTS}: program start to ready {ready:.1} ms; enrol {enroll:.1} + fetch {fetch:.1} ms; \
             ratio {ratio:.2} (aim: at most {BOOT_AIM})"
        );
        Ok(json!({ "ready_ms": ready, "enroll_ms": enroll, "fetch_ms": fetch, "ratio": ratio }))
    }

    /// One devbox, a server that serves it, and no launch.
    fn idle(&mut self) -> Result<serde_json::Value> {
        let daemon = self.daemon(1, SERVER_CPU)?;
        let processes = [daemon.pid(), self.server.pid()];
        let count = || processes.map(process::wakes).into_iter().collect::<Result<Vec<u64>>>();
        // Threads that started the daemon's life have ended by then.
        sleep(SETTLED);
        let before = count()?;
        sleep(IDLE);
        let wakes: Vec<u64> = count()?.iter().zip(before).map(|(after, before)| after - before).collect();
        println!(
            "\nIdle for a minute, wakes: daemon {} (aim: at most 6), server {} (aim: at most 60)",
            wakes[0], wakes[1]
        );
        Ok(json!({ "daemon_wakes_per_minute": wakes[0], "server_wakes_per_minute": wakes[1] }))
    }

    fn memory(&mut self) -> Result<serde_json::Value> {
        let idle = resident_bytes(self.daemon(1, SERVER_CPU)?.pid())?;
        self.store(SIZES[3]..MANY)?;
        let full = resident_bytes(self.daemon(MANY, SERVER_CPU)?.pid())?;
        println!(
            "\nDaemon, resident: {:.1} MiB with 1 secret (aim: at most 8), {:.1} MiB with {MANY} (aim: at most 10)",
            mebibytes(idle),
            mebibytes(full)
        );
        Ok(json!({ "idle_bytes": idle, "full_bytes": full }))
    }
}

fn name(index: usize) -> String {
    format!("BENCH_SECRET_{index:05}")
}

/// Pins a process, with every thread that it has by now.
fn pin(process: Pid, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(thread), &cpus).context("two processors are needed")?;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
