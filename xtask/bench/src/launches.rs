//! One launch, by several ways to give a command its environment.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::figures::{median, quantile};
use super::spawn::Program;
use super::{VALUE_LEN, name};
use xtask::build::Programs;
use xtask::programs::Daemon;

const COMMAND: &str = "/usr/bin/true";
const ENVDIR: &str = "/usr/bin/envdir";
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

pub(super) const HEADING: &str = "secrets  kind              median      p99   ratio  of p99";

/// Every kind of launch with one number of secrets.
pub(super) struct Row {
    pub(super) count: usize,
    pub(super) kinds: Vec<Kind>,
}

/// One kind of launch.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Microseconds.
    pub(super) median: f64,
    p99: f64,
    /// Median over the bare exec's median.
    pub(super) ratio: f64,
    /// The same of the p99s.
    p99_ratio: f64,
}

/// Launches `runs` times by each way, in turns.
pub(super) fn measure(
    programs: &Programs,
    daemon: &Daemon,
    directory: &Path,
    count: usize,
    runs: usize,
) -> Result<Row> {
    let ways = ways(programs, daemon, directory, count)?;
    let mut samples: Vec<Vec<f64>> = ways.iter().map(|_| Vec::with_capacity(runs)).collect();
    for _ in 0..runs {
        for ((_, program), samples) in ways.iter().zip(&mut samples) {
            samples.push(program.time()?);
        }
    }
    let (bare, bare_p99) = (median(&mut samples[0]), quantile(&mut samples[0], 0.99));
    let kinds = ways.iter().zip(&mut samples).map(|((name, _), samples)| {
        let (median, p99) = (median(samples), quantile(samples, 0.99));
        Kind { name, median, p99, ratio: median / bare, p99_ratio: p99 / bare_p99 }
    });
    Ok(Row { count, kinds: kinds.collect() })
}

/// The bare exec first.
fn ways(
    programs: &Programs,
    daemon: &Daemon,
    directory: &Path,
    count: usize,
) -> Result<Vec<(&'static str, Program)>> {
    let variables: Vec<String> =
        (0..count).map(|i| format!("{}={}", name(i), "v".repeat(VALUE_LEN))).collect();
    let base = vec![PATH.to_owned()];
    let whole: Vec<String> = base.iter().chain(&variables).cloned().collect();
    let env: Vec<OsString> = ["/usr/bin/env".into()]
        .into_iter()
        .chain(variables.iter().map(Into::into))
        .chain([COMMAND.into()])
        .collect();
    let shim = [
        programs.shim.as_os_str(),
        "--socket".as_ref(),
        daemon.socket.as_os_str(),
        "--".as_ref(),
        COMMAND.as_ref(),
    ];
    let mut ways = vec![
        ("bare exec", Program::new(&[COMMAND], &whole)?),
        ("devbox-exec", Program::new(&shim, &base)?),
        ("env NAME=VALUE…", Program::new(&env, &base)?),
    ];
    if Path::new(ENVDIR).exists() {
        let directory = envdir(directory, count)?;
        let arguments = [ENVDIR.as_ref(), directory.as_os_str(), COMMAND.as_ref()];
        ways.push(("envdir", Program::new(&arguments, &base)?));
    } else if count == 1 {
        println!("(envdir is left out: install the Debian package daemontools)");
    }
    Ok(ways)
}

/// A file a variable, in plaintext, as envdir wants it.
fn envdir(directory: &Path, count: usize) -> Result<PathBuf> {
    let directory = directory.join(format!("envdir-{count}"));
    std::fs::create_dir(&directory)?;
    for i in 0..count {
        std::fs::write(directory.join(name(i)), "v".repeat(VALUE_LEN))?;
    }
    Ok(directory)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, kind) in self.kinds.iter().enumerate() {
            let count = if i == 0 { self.count.to_string() } else { String::new() };
            let Kind { name, median, p99, ratio, p99_ratio } = kind;
            let separator = if i == 0 { "" } else { "\n" };
            write!(
                f,
                "{separator}{count:>7}  {name:<15} {median:>8.0} {p99:>8.0}   {ratio:>5.2}   {p99_ratio:>5.2}"
            )?;
        }
        Ok(())
    }
}

impl Row {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let kinds = self.kinds.iter().map(|kind| {
            json!({ "kind": kind.name, "median_us": kind.median, "p99_us": kind.p99, "ratio": kind.ratio,
            "p99_ratio": kind.p99_ratio })
        });
        json!({ "secrets": self.count, "kinds": kinds.collect::<Vec<_>>() })
    }
}
