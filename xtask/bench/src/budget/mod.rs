//! Budgets under attack: how long one party's work takes at rest and while another party uses its own budgets up.
//!
//! - [`accounts`]: two accounts on one server, with every attack of the one; [`attack`]: one of them, sent at a steady pace;
//! - [`users`]: two users on one devbox.
//!
//! A figure counts only if the counter of the attacked budget rose all the while: otherwise the attack was not at its budget,
//! and the bench fails.

mod accounts;
mod attack;
mod users;

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::figures::{median, quantile};
use xtask::build::Programs;

pub(super) use users::{Helper, help};

const HEADING: &str =
    "attack                   other party's work  at rest      p99   attacked      p99   ratio  of p99";

/// One attack, and the work of another party beside it.
#[derive(Debug)]
struct Row {
    attack: &'static str,
    work: Vec<Work>,
    proof: Proof,
}

/// One kind of work, in milliseconds.
#[derive(Debug)]
struct Work {
    kind: &'static str,
    /// Median and p99.
    rest: [f64; 2],
    attacked: [f64; 2],
}

/// Refusals of the attacker by the attacked budget during the measurement.
#[derive(Debug)]
struct Proof {
    /// The counter, as in the metrics.
    counter: String,
    refused: u64,
}

/// Measures both parts, each of `rounds` rounds at rest and as many under each attack. `directory` is empty and of this bench alone.
pub(super) fn measure(programs: &Programs, directory: &Path, rounds: usize) -> Result<Value> {
    println!(
        "\nBudgets: another party's work at rest and under attack, {rounds} rounds each; median and p99 in ms"
    );
    println!("{HEADING}");
    let accounts = accounts::measure(programs, directory, rounds)?;
    let users = users::measure(programs, directory, rounds)?;
    let rows = accounts.iter().chain(&users).map(Row::to_json);
    Ok(json!({ "rounds": rounds, "attacks": rows.collect::<Vec<_>>() }))
}

impl Work {
    fn new(kind: &'static str, rest: &mut [f64], attacked: &mut [f64]) -> Self {
        let both = |samples: &mut [f64]| [median(samples), quantile(samples, 0.99)];
        Self { kind, rest: both(rest), attacked: both(attacked) }
    }

    /// Of the medians, and of the p99s.
    fn ratios(&self) -> [f64; 2] {
        [0, 1].map(|i| self.attacked[i] / self.rest[i])
    }

    fn to_json(&self) -> Value {
        let (Self { kind, rest, attacked }, [ratio, p99_ratio]) = (self, self.ratios());
        json!({
            "work": kind, "rest_median_ms": rest[0], "rest_p99_ms": rest[1], "attacked_median_ms": attacked[0],
            "attacked_p99_ms": attacked[1], "ratio": ratio, "p99_ratio": p99_ratio,
        })
    }
}

impl Proof {
    /// `samples`: the counter's, before and after so many rounds. Fewer than one refusal a round mean that the attack was not at
    /// its budget all the time.
    fn new(attack: &str, counter: &str, samples: [u64; 2], rounds: usize) -> Result<Self> {
        let refused = samples[1].saturating_sub(samples[0]);
        ensure!(
            refused >= rounds as u64,
            "{attack}: void, because {counter} rose by {refused} only in {rounds} rounds"
        );
        Ok(Self { counter: counter.to_owned(), refused })
    }
}

impl Row {
    /// Prints it, as soon as it is measured.
    fn shown(self) -> Self {
        println!("{self}");
        self
    }

    fn to_json(&self) -> Value {
        let work: Vec<Value> = self.work.iter().map(Work::to_json).collect();
        json!({
            "attack": self.attack, "work": work, "counter": self.proof.counter, "refused": self.proof.refused,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proof { counter, refused } = &self.proof;
        for (i, work) in self.work.iter().enumerate() {
            let attack = if i == 0 { self.attack } else { "" };
            let (Work { kind, rest, attacked }, [ratio, p99_ratio]) = (work, work.ratios());
            writeln!(
                f,
                "{attack:<24} {kind:<18} {:>8.2} {:>8.2}   {:>8.2} {:>8.2}   {ratio:>5.2}   {p99_ratio:>5.2}",
                rest[0], rest[1], attacked[0], attacked[1]
            )?;
        }
        write!(f, "{:24} reached: {counter} +{refused}", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_with_too_few_refusals_is_void() {
        assert!(
            Proof::new("guesses", "refusals_total", [7, 16], 10).unwrap_err().to_string().contains("void")
        );
        assert_eq!(Proof::new("guesses", "refusals_total", [7, 17], 10).unwrap().refused, 10);
    }

    #[test]
    fn ratios_are_of_medians_and_of_p99s() {
        let work = Work::new("list", &mut [1.0, 2.0, 4.0], &mut [3.0, 3.0, 12.0]);
        assert_eq!(work.ratios(), [1.5, 3.0]);
    }
}
