//! Every system call of a program and its children, by strace(1), and which of them carried a canary.
//!
//! Reads and writes through mapped memory make no system call, so no trace shows them. Files that are mapped
//! are found on the disk, and shared memory is what the other rigs look into.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::canary::Canary;
use crate::process::becoming;
use crate::{needs, wait};

/// How long a string strace prints whole: longer than any value.
const LONGEST_STRING: &str = "1048576";

/// Whether this test can trace.
#[must_use]
pub fn can_trace() -> bool {
    needs::root() && needs::program("strace", "strace")
}

/// A program being traced, or the trace that it left.
#[derive(Debug)]
pub struct Trace {
    file: PathBuf,
}

impl Trace {
    /// `command` under strace. The process that is started becomes the program itself: signals to it and its status are the
    /// program's own. Its standard input and output are closed, unless set again.
    #[must_use]
    pub fn of(command: &Command, file: &Path, options: &[&str]) -> (Self, Command) {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-q", "-v", "-s", LONGEST_STRING, "-o"]).arg(file).args(options);
        strace.arg("--");
        let mut strace = becoming(strace, command);
        strace.stdin(Stdio::null()).stdout(Stdio::null());
        (Self { file: file.to_owned() }, strace)
    }

    /// Waits for the tracer, which outlives the traced process `pid` by a moment.
    pub async fn complete(&self, pid: u32) {
        let end = format!("{pid} +++ ");
        wait::until("the trace's end", async || {
            self.text().lines().any(|line| without_padding(line).starts_with(&end)).then_some(())
        })
        .await;
    }

    /// The trace so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.file).unwrap_or_default()).into_owned()
    }

    /// How often each system call carried the canary, in any form.
    #[must_use]
    pub fn carriers(&self, canary: &Canary) -> BTreeMap<String, usize> {
        let mut carriers = BTreeMap::new();
        for line in self.text().lines().filter(|line| !canary.found_in(line.as_bytes()).is_empty()) {
            *carriers.entry(system_call(line).to_owned()).or_default() += 1;
        }
        carriers
    }

    /// Every system call that was made, and how often.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for line in self.text().lines() {
            *calls.entry(system_call(line).to_owned()).or_default() += 1;
        }
        calls
    }
}

/// strace pads process ids.
fn without_padding(line: &str) -> String {
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// `PID name(…` or `PID <... name resumed>…`
fn system_call(line: &str) -> &str {
    let rest = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
    match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next().unwrap_or_default(),
        None => rest.split('(').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_trace_names_its_system_call() {
        assert_eq!(system_call("12  recvfrom(9, \"a(b\", 3, 0, NULL, NULL) = 3"), "recvfrom");
        assert_eq!(system_call("1234 <... read resumed>\"x\", 1) = 1"), "read");
    }

    #[test]
    fn carriers_are_counted_by_system_call() {
        let directory = tempfile::tempdir().unwrap();
        let trace = Trace { file: directory.path().join("trace") };
        let canary = Canary::random();
        let half = &canary.value()[..24];
        fs::write(&trace.file, format!("1 read(3, \"{half}\") = 1\n1 write(3, \"x\") = 1\n")).unwrap();
        assert_eq!(trace.carriers(&canary), BTreeMap::from([("read".to_owned(), 1)]));
    }
}
