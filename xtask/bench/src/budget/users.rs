//! Two users on one devbox: launches of the one while the other floods the launch socket and reads no answer. Needs root, to be
//! both of them.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use nix::unistd::geteuid;

use super::{Proof, Row, Work};
use crate::spawn::Program;
use crate::throughput::request;
use crate::{VALUE_LEN, name};
use xtask::build::Programs;
use xtask::programs::{Daemon, Server};

/// Users without a process of their own.
const LAUNCHING: u32 = 61_001;
const FLOODING: u32 = 61_002;
const SECRETS: usize = 10;
/// Launches, for each round.
const LAUNCHES: usize = 10;
const ATTACK: &str = "unread answers";
const COUNTER: &str = "launch_refusals_total{reason=\"busy\"}";
/// Threads of the flood, the connections that each holds, and how soon it opens the next one: 2,000 a second in all, more held
/// than one user may have.
const FLOODERS: usize = 4;
const HELD: usize = 150;
const CONNECT_EVERY: Duration = Duration::from_millis(2);
/// The flood ends by itself if the bench is killed.
const LONGEST_FLOOD: Duration = Duration::from_secs(300);
/// Until the flood has reached its budget.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// This program as another user.
#[derive(Debug, Subcommand)]
pub(crate) enum Helper {
    /// Connect again and again, and leave the answers unread, until it is killed
    #[command(hide = true)]
    Flood { socket: PathBuf },
    /// Launch, and print how many milliseconds each launch took
    #[command(hide = true)]
    Launches { shim: String, socket: String, count: usize },
}

/// Does what `helper` says.
pub(crate) fn help(helper: &Helper) -> Result<()> {
    match helper {
        Helper::Flood { socket } => flood(socket),
        Helper::Launches { shim, socket, count } => print_launches(shim, socket, *count),
    }
}

/// No rows without root.
pub(super) fn measure(programs: &Programs, directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    if !geteuid().is_root() {
        println!("(the flood of one user beside another user's launches is left out: it needs root)");
        return Ok(Vec::new());
    }
    let directory = directory.join("users");
    fs::create_dir(&directory)?;
    let server = Server::start(programs, &directory)?;
    (0..SECRETS).try_for_each(|i| server.create_secret(&name(i), &"v".repeat(VALUE_LEN)))?;
    let rule = |user: u32| format!("[[rule]]\nuid = {user}\nenv = [\"*\"]\n");
    let rules = [rule(LAUNCHING), rule(FLOODING)].concat();
    let daemon = Daemon::start_with(programs, &directory, &server, &server.create_devbox("users")?, &rules)?;
    let shim = open_to_all(&directory, &programs.shim)?;
    Ok(vec![row(&daemon, &shim, rounds)?.shown()])
}

fn row(daemon: &Daemon, shim: &Path, rounds: usize) -> Result<Row> {
    let count = rounds * LAUNCHES;
    let mut rest = launches(shim, &daemon.socket, count)?;
    let before = daemon.metric(COUNTER)?;
    let flood = Flood::start(&daemon.socket)?;
    let reached = until_over(daemon, before)?;
    let mut attacked = launches(shim, &daemon.socket, count).context("launches under the flood")?;
    let proof = Proof::new(ATTACK, COUNTER, [reached, daemon.metric(COUNTER)?], rounds)?;
    drop(flood);
    Ok(Row { attack: ATTACK, work: vec![Work::new("launch", &mut rest, &mut attacked)], proof })
}

/// A copy of the shim in `directory`, and the way to it and to the socket open to every user.
fn open_to_all(directory: &Path, shim: &Path) -> Result<PathBuf> {
    let copy = directory.join("devbox-exec");
    fs::copy(shim, &copy)?;
    for part in directory.ancestors().take_while(|part| *part != std::env::temp_dir()) {
        fs::set_permissions(part, Permissions::from_mode(0o711))?;
    }
    Ok(copy)
}

/// This program as `user`. The kernel's link needs no way to the file that this user may take.
fn as_user(user: u32) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.uid(user).gid(user).current_dir("/");
    command
}

fn launches(shim: &Path, socket: &Path, count: usize) -> Result<Vec<f64>> {
    let mut command = as_user(LAUNCHING);
    command.arg("launches").arg(shim).arg(socket).arg(count.to_string()).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "launches of another user ended with {}", output.status);
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| Ok(line.parse()?)).collect()
}

fn print_launches(shim: &str, socket: &str, count: usize) -> Result<()> {
    let program = Program::new(&[shim, "--socket", socket, "--", "/usr/bin/true"], &[])?;
    for _ in 0..count {
        println!("{}", program.time()? / 1e3);
    }
    Ok(())
}

fn until_over(daemon: &Daemon, before: u64) -> Result<u64> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let refused = daemon.metric(COUNTER)?;
        if refused > before {
            return Ok(refused);
        }
        sleep(LOOK_EVERY);
    }
    bail!("{ATTACK}: void, because {COUNTER} did not rise in {} s", PATIENCE.as_secs())
}

/// The flooding user's process, ended and waited for when dropped.
struct Flood(Child);

impl Flood {
    fn start(socket: &Path) -> Result<Self> {
        let mut command = as_user(FLOODING);
        command.arg("flood").arg(socket).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("the flood does not start")?))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flood(socket: &Path) -> Result<()> {
    std::thread::spawn(|| {
        sleep(LONGEST_FLOOD);
        std::process::abort();
    });
    let mut buffer = [0; 64];
    let request = request(&mut buffer)?;
    scope(|scope| {
        for _ in 0..FLOODERS {
            scope.spawn(|| hold_unread(socket, request));
        }
    });
    Ok(())
}

/// The oldest connection makes room for the next.
fn hold_unread(socket: &Path, request: &[u8]) {
    let mut held = VecDeque::with_capacity(HELD);
    loop {
        sleep(CONNECT_EVERY);
        if held.len() == HELD {
            held.pop_front();
        }
        // Refused connections are what the flood is for.
        let connected = UnixStream::connect(socket).and_then(|mut stream| {
            stream.write_all(request)?;
            Ok(stream)
        });
        held.extend(connected.ok());
    }
}
