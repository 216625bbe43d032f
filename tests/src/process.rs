//! One running program: its output goes to a file, it ends with the test, and a failing test prints the end of its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// `RUST_LOG` of every program that a test starts: everything that it and its libraries can log, even if the program caps its
/// libraries by name.
pub const MOST_TALKATIVE: &str = "trace,h2::codec=trace,h2::hpack=trace,h2::proto=trace,hyper::proto=trace,\
    hyper_util::client=trace,rustls::conn=trace,sqlx::query=trace,sqlx_core::logger=trace,axum::rejection=trace";

/// How much of a log a failing test prints.
const TAIL_LINES: usize = 60;

/// A program that this test started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Program {
    /// Starts `command` with its standard error appended to `log`.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        Self::spawn(command.stderr(append(log)), log)
    }

    /// Starts `command` with `stderr` for its standard error: [`Self::log`] stays empty.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start_logging_to(command: &mut Command, stderr: Stdio) -> Self {
        Self::spawn(command.stderr(stderr), Path::new("/dev/null"))
    }

    fn spawn(command: &mut Command, log: &Path) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", command.get_program().display()));
        Self { child, log: log.to_owned(), status: None }
    }

    /// Writes `input` to its standard input, a pipe, and closes it.
    ///
    /// # Panics
    /// If its standard input is not a pipe, or was closed already.
    pub fn give(&mut self, input: &str) {
        let mut stdin = self.child.stdin.take().expect("its standard input is a pipe");
        // A program that ends without reading its input breaks the pipe: its exit status tells the story.
        let _ = stdin.write_all(input.as_bytes());
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the program has already ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.ended().is_none(), "the program has already ended: {:?}\n{}", self.status, self.tail());
        kill(self.nix_pid(), signal).expect("a child can be signalled");
    }

    /// Waits until it ends by itself.
    pub async fn end(&mut self) -> ExitStatus {
        wait::until("a program to end", async || self.ended()).await
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end().await
    }

    /// Ends it at once, by SIGKILL.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("a child can be killed");
            self.status = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.pid().try_into().expect("a process id is a positive i32"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            say(&format!("--- {} ({:?}) ---\n{}", self.log.display(), self.status, self.tail()));
        }
    }
}

/// A command that runs `outer`, which becomes `inner` with its arguments and environment: another namespace, other limits.
/// Standard streams, user and folder are `outer`'s.
#[must_use]
pub fn becoming(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// The result of a program that ran to its end.
#[derive(Debug)]
pub struct Output {
    /// Exit status; a death by signal N is 128 + N, as in a shell.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8")
    }

    /// The same, once the program has succeeded.
    ///
    /// # Panics
    /// If it failed.
    pub fn success(self) -> Self {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            status: output.status.code().unwrap_or_else(signal),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end, with `input` on its standard input.
///
/// # Panics
/// If it does not start, or does not end within [`wait::DEADLINE`].
pub async fn run(command: Command, input: &[u8]) -> Output {
    run_within(wait::DEADLINE, command, input).await
}

/// The same with another limit.
///
/// # Panics
/// If it does not start, or does not end within `limit`.
pub async fn run_within(limit: Duration, command: Command, input: &[u8]) -> Output {
    use tokio::io::AsyncWriteExt as _;
    let program = command.get_program().display().to_string();
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("its standard input is a pipe");
    // A program that ends without reading its input breaks the pipe: its exit status tells the story.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    wait::within_limit(limit, &program, child.wait_with_output())
        .await
        .expect("its output can be read")
        .into()
}

/// A file to append to, in a folder that is made if it is missing.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn append(path: &Path) -> File {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder can be made");
    OpenOptions::new().create(true).append(true).open(path).expect("the file can be made")
}

/// A pipe without a reader at work: the next write of one byte would block.
///
/// # Panics
/// If no pipe can be made.
#[must_use]
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe can be made");
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("a pipe's flags can be set");
    set(OFlag::O_NONBLOCK);
    while (&writer).write(&[b'x'; 4_096]).is_ok() {}
    while (&writer).write(b"x").is_ok() {}
    set(OFlag::empty());
    (reader, writer)
}

/// Writes past the test runner's capture, so that the reason of a skipped or failing test is always shown.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
