//! The program itself: what it prints, how it ends, what it refuses to start with.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_devbox-secrets-server");

/// A running `dev`; killed on drop.
pub(crate) struct Dev {
    pub(crate) child: Child,
    pub(crate) announced: Value,
    stdout: BufReader<ChildStdout>,
}

impl Dev {
    pub(crate) fn start(state: &Path) -> Self {
        let log = fs::File::create(state.with_extension("log")).unwrap();
        Self::start_with(state, log.into(), &[])
    }

    /// As [`Dev::start`], with another standard error and more arguments.
    pub(crate) fn start_with(state: &Path, stderr: Stdio, args: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--state"])
            .arg(state)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let announced = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, announced, stdout }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.announced[field].as_str().unwrap()
    }

    pub(crate) fn address(&self) -> &str {
        self.text("api").strip_prefix("http://").unwrap()
    }

    /// Sends `signal` and returns the exit code and what else was printed.
    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap()
}

fn succeed(args: &[&str]) {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn dev_announces_itself_on_one_line_and_ends_well_at_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dev = Dev::start(&state);
        let mut fields: Vec<&String> = dev.announced.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(fields, ["account", "api", "devbox", "token"]);
        assert!(dev.text("api").starts_with("http://127.0.0.1:"));
        assert!(dev.text("devbox").starts_with("https://127.0.0.1:"));
        assert_eq!(dev.end(signal), (Some(0), String::new()), "standard output has that line alone");
    }
}

#[test]
fn memory_is_locked_wherever_no_limit_could_starve_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("state"));
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", dev.child.id())).unwrap();
    let status = read("status");
    let limits = read("limits");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap();
    let is_unlimited = limit.split_whitespace().nth(1) == Some("unlimited");
    let may_exceed = u64::from_str_radix(&field("CapEff:"), 16).unwrap() & (1 << 14) != 0;
    assert_eq!(field("VmLck:") != "0 kB", is_unlimited || may_exceed, "{limit} {}", field("VmLck:"));
}

#[test]
fn the_log_has_neither_token_nor_value() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let dev = Dev::start(&state);
    let token = dev.text("token").to_owned();
    let canary = "canary-51b0c3";
    let request = crate::memory::post_value(&token, canary);
    let answer = crate::memory::exchange(dev.address(), &request);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    dev.end(Signal::SIGTERM);
    let log = fs::read_to_string(state.with_extension("log")).unwrap();
    assert!(log.contains("\"route\":\"/v1/secrets\""), "{log}");
    assert!(!log.contains(canary) && !log.contains(&token), "{log}");
}

#[test]
fn check_reports_every_mistake_of_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    fs::write(&file, "[state]\ndirectory = \"/s\"\nmaster = 1\n[api]\nlisten = \"0.0.0.0:80\"\n").unwrap();
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        for part in
            ["server.toml:3:", "server.toml:5:", "[devbox] listen is missing", "master_key_file is missing"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2_with_the_remedy() {
    for (args, part) in [
        (&["serve"][..], "--config FILE"),
        (&["dev"], "--state DIR"),
        (&["dev", "--state", "/nonexistent/x", "--api", "0.0.0.0:0"], "loopback"),
        (&["account", "list"], "--config FILE or --state DIR"),
        (&["serve", "--config", "/nonexistent/x.toml"], "/nonexistent/x.toml"),
        (&["nonsense"], "nonsense"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}

/// A configuration of a server in `directory`, on free loopback ports.
fn configuration(directory: &Path) -> (PathBuf, PathBuf) {
    let file = directory.join("server.toml");
    let key = directory.join("master.key");
    let state = directory.join("state");
    let text = format!(
        "[state]\ndirectory = {state:?}\nmaster_key_file = {key:?}\n[api]\nlisten = \"127.0.0.1:0\"\n[devbox]\nlisten = \"127.0.0.1:0\"\n"
    );
    fs::write(&file, text).unwrap();
    (file, key)
}

#[test]
fn serve_without_its_master_key_fails_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = configuration(directory.path());
    let file = file.to_str().unwrap();
    succeed(&["keys", "init", "--config", file]);
    succeed(&["init", "--config", file]);
    fs::remove_file(&key).unwrap();
    let output = run(&["serve", "--config", file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(key.to_str().unwrap()), "{}", stderr(&output));
}

#[test]
fn a_master_key_is_made_once_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = configuration(directory.path());
    let file = file.to_str().unwrap();
    assert_eq!(run(&["check", "--config", file]).status.code(), Some(2), "there is no key yet");
    assert_eq!(run(&["keys", "init", "--config", file]).status.code(), Some(0));
    assert_eq!(mode(&key), 0o600);
    let made = fs::read(&key).unwrap();
    assert_eq!(run(&["keys", "init", "--config", file]).status.code(), Some(1));
    assert_eq!(fs::read(&key).unwrap(), made);
    assert_eq!(run(&["check", "--config", file]).status.code(), Some(0));
}

#[test]
fn only_init_creates_a_state_so_that_an_unmounted_volume_stays_empty() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = configuration(directory.path());
    let file = file.to_str().unwrap();
    let state = directory.path().join("state");
    succeed(&["keys", "init", "--config", file]);
    let commands: [&[&str]; 5] = [
        &["serve"],
        &["account", "create", "acme"],
        &["check", "--deep"],
        &["backup", "--to", "/nonexistent/copy"],
        &["keys", "rotate", "--new-master-key", "/nonexistent/key"],
    ];
    for command in commands {
        // With and without the mount point.
        for _ in 0..2 {
            let output = run(&[&["--config", file], command].concat());
            assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
            assert!(stderr(&output).contains("there is no state in"), "{command:?}: {}", stderr(&output));
            assert!(!state.join("state.sqlite3").exists(), "{command:?}");
            fs::create_dir_all(&state).unwrap();
        }
        fs::remove_dir(&state).unwrap();
    }
    for _ in 0..2 {
        succeed(&["init", "--config", file]);
    }
    succeed(&["account", "create", "acme", "--config", file]);
    succeed(&["check", "--deep", "--config", file]);
}

#[test]
fn init_is_refused_beside_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let _dev = Dev::start(&state);
    let output = run(&["init", "--state", state.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("being served"), "{}", stderr(&output));
}

#[test]
fn check_before_a_start_opens_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = configuration(directory.path());
    let file = file.to_str().unwrap();
    let state = directory.path().join("state");
    succeed(&["keys", "init", "--config", file]);
    succeed(&["init", "--config", file]);
    for name in ["state.sqlite3-wal", "state.sqlite3-shm"] {
        let _ = fs::remove_file(state.join(name));
    }
    fs::write(state.join("state.sqlite3"), b"no database").unwrap();
    succeed(&["check", "--config", file]);
    assert_eq!(run(&["check", "--deep", "--config", file]).status.code(), Some(1));
}
