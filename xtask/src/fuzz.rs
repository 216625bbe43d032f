//! `cargo xtask fuzz`: libFuzzer against everything that reads bytes from outside.
//!
//! Only this workspace's own crates are compiled for it, with coverage (`tests/fuzz/instrument`); every other one comes from
//! the ordinary build. So stable Rust will do, nothing has to be installed but a C++ compiler, and the build takes about a
//! minute. Inputs that reached new code stay in `target/fuzz/corpus`, those that broke something in
//! `target/fuzz/artifacts`.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use xtask::build::{cargo, succeed, target_directory, workspace};

/// Longest input, in bytes.
const MAX_INPUT: usize = 4_096;
/// Longest time for one input, in seconds: no reader has a reason to think longer.
const MAX_INPUT_SECONDS: u64 = 10;
/// Most memory of a fuzzer, in MiB.
const MAX_MEMORY: usize = 1_024;
/// Lines of a fuzzer's output that are shown when it finds something.
const SHOWN_LINES: usize = 40;
/// Time for each target in a test run, in seconds.
const SHORT_RUN_SECONDS: u64 = 4;

/// Fuzzes `target`, or every one in turn, for `seconds` each.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> Result<ExitCode> {
    let all = targets()?;
    let chosen: Vec<String> = match target {
        None => all,
        Some(target) if all.iter().any(|known| known == target) => vec![target.to_owned()],
        Some(target) => bail!("there is no fuzz target {target}; there are: {}", all.join(", ")),
    };
    build(&chosen)?;
    let kept = target_directory().join("fuzz/corpus");
    let found = chosen.iter().map(|target| fuzz(target, seconds, None, &kept.join(target)));
    let found = found.collect::<Result<Vec<bool>>>()?;
    Ok(if found.contains(&true) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Every target for a few seconds, the whole corpus first, the same inputs each time.
///
/// # Errors
/// When an input breaks something; which one is on the terminal.
pub(crate) fn short_run() -> Result<()> {
    let targets = targets()?;
    build(&targets)?;
    for target in &targets {
        let forgotten = TempDir::new().context("there is no room for a temporary directory")?;
        if fuzz(target, SHORT_RUN_SECONDS, Some(1), forgotten.path())? {
            bail!("the fuzz target {target} found an input that breaks a promise");
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace().join("tests/fuzz")
}

fn targets() -> Result<Vec<String>> {
    let programs =
        fs::read_dir(folder().join("fuzz_targets")).context("tests/fuzz/fuzz_targets is not there")?;
    let paths = programs.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    let names = paths.iter().filter_map(|path| path.file_stem()?.to_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// `--workspace`, so that every dependency has the features that it has in the ordinary build.
fn build(targets: &[String]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--features", "devbox-secrets-fuzz/libfuzzer"]);
    build.args(targets.iter().flat_map(|target| ["--bin", target]));
    build.env("RUSTC_WORKSPACE_WRAPPER", folder().join("instrument"));
    succeed(&mut build).context("the fuzz targets do not build; is there a C++ compiler (Debian: g++)?")
}

/// Runs one target. Whether it found something.
fn fuzz(target: &str, seconds: u64, seed: Option<u32>, new_inputs: &Path) -> Result<bool> {
    let artifacts = target_directory().join("fuzz/artifacts").join(target);
    for folder in [&artifacts, new_inputs] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let scratch = scratch().context("there is no room for a temporary directory")?;
    let mut command = Command::new(target_directory().join("debug").join(target));
    command.args(options(target, seconds, seed, &artifacts)).arg(new_inputs).arg(corpus(target));
    command.env("TMPDIR", scratch.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut fuzzer = command.spawn().with_context(|| format!("cannot start {target}"))?;
    let output = watch(target, &mut fuzzer)?;
    let status = fuzzer.wait().with_context(|| format!("cannot wait for {target}"))?;
    if !status.success() {
        report(target, &output);
    }
    Ok(!status.success())
}

fn corpus(target: &str) -> PathBuf {
    folder().join("corpus").join(target)
}

/// Targets read their files back at once, so they are in memory if there is such a file system.
fn scratch() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }
}

fn options(target: &str, seconds: u64, seed: Option<u32>, artifacts: &Path) -> Vec<String> {
    let mut options = vec![
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT}"),
        format!("-timeout={MAX_INPUT_SECONDS}"),
        format!("-rss_limit_mb={MAX_MEMORY}"),
        format!("-artifact_prefix={}/", artifacts.display()),
    ];
    options.extend(seed.map(|seed| format!("-seed={seed}")));
    let dictionary = folder().join("dictionaries").join(target);
    options.extend(dictionary.exists().then(|| format!("-dict={}", dictionary.display())));
    options
}

/// Follows the fuzzer to its end, with a line of progress. Answers what it said that is not progress.
fn watch(target: &str, fuzzer: &mut Child) -> Result<Vec<String>> {
    let stderr: ChildStderr = fuzzer.stderr.take().context("the fuzzer's output is not there")?;
    let live = io::stdout().is_terminal();
    let mut rest = Vec::new();
    let mut latest = String::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("the fuzzer's output cannot be read")?).into_owned();
        match progress(&line) {
            Some(progress) => latest = progress,
            None => rest.push(line),
        }
        if live {
            print!("\r{target:<20} {latest:<60}");
            io::stdout().flush()?;
        }
    }
    println!("{}{target:<20} {latest:<60}", if live { "\r" } else { "" });
    Ok(rest)
}

/// `#4096 NEW cov: 120 ft: 300 corp: 20/4Kb lim: 4096 exec/s: 2048 rss: 60Mb …`, in fewer words.
fn progress(line: &str) -> Option<String> {
    let inputs = line.strip_prefix('#')?.split_whitespace().next()?;
    let field = |name: &str| line.split(name).nth(1).and_then(|rest| rest.split_whitespace().next());
    let (coverage, corpus, speed) = (field(" cov: ")?, field(" corp: ")?, field(" exec/s: ")?);
    let corpus = corpus.split('/').next().unwrap_or(corpus);
    Some(format!("{inputs} inputs, {speed}/s, {coverage} places in the code, {corpus} inputs kept"))
}

fn report(target: &str, output: &[String]) {
    let shown = &output[output.len().saturating_sub(SHOWN_LINES)..];
    println!("{}", shown.join("\n"));
    match output.iter().find_map(|line| line.split("Test unit written to ").nth(1)) {
        None => println!("\n{target} ended without an input to show for it."),
        Some(input) => println!(
            "\n{target} breaks on {input}\nAgain: {} {input}\nOnce it is mended, keep the input: cp {input} {}/",
            target_directory().join("debug").join(target).display(),
            corpus(target).display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_is_told_from_all_others() {
        let line =
            "#4096\tNEW    cov: 120 ft: 300 corp: 20/4096b lim: 4096 exec/s: 2048 rss: 60Mb L: 9/9 MS: 1 -";
        let expected = "4096 inputs, 2048/s, 120 places in the code, 20 inputs kept";
        assert_eq!(progress(line).as_deref(), Some(expected));
        for other in ["INFO: seed corpus: files: 5", "    #3 0x55d1 in main", "#1", ""] {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn every_target_has_a_corpus() {
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        assert!(targets.iter().all(|target| corpus(target).is_dir()), "{targets:?}");
    }
}
