//! Secrets that the daemon withdraws while the program reads them.
//!
//! The program is stopped at each system call between its request and its command, and the daemon's steps fall into every gap.

use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use devbox_launch_proto::{Answer, HEADER_LEN, WITHDRAWN};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::build::released;
use crate::peer::{header, socket_in};
use crate::run::{environment, success};
use crate::secret_file::{Mapping, open_secret_file};

const STRINGS: &[u8] = b"A=first\0";
/// More stops than the program makes between its answer and its command.
const MOST_STOPS: usize = 100;

/// When the daemon takes each step of a withdrawal: 0 is while the answer is unread, n the n-th stop after that.
#[derive(Debug, Clone, Copy)]
struct Times {
    mark: usize,
    ask: usize,
    wipe: usize,
}

#[test]
fn no_moment_of_a_withdrawal_starts_a_command_without_its_secrets() {
    let mut asked_again = 0;
    for (mark, ask) in [(0, 0), (0, 1), (1, 1)] {
        for wipe in ask..MOST_STOPS {
            let times = Times { mark, ask, wipe };
            let (stops, found) = launch(times);
            assert!(found == ["A=first"] || found == ["A=second"], "{times:?}: {found:?}");
            asked_again += usize::from(found == ["A=second"]);
            if stops < wipe {
                break;
            }
        }
    }
    assert!(asked_again > 10, "a marked answer is asked for again: {asked_again}");
}

/// One launch. Returns how many stops its first answer lasted, and its command's environment.
fn launch(times: Times) -> (usize, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_in(folder.path())).unwrap();
    let program = Traced::start(&socket_in(folder.path()));
    program.start_tracing();
    // It waits for its answer in one call and receives it in another.
    program.run_to(libc::SYS_ppoll);
    let mut pages = answer(&listener, b"A=first\0");
    program.run_to(libc::SYS_recvmsg);
    let mut stops = 0;
    loop {
        withdraw(&mut pages, times, stops);
        if program.call() == libc::SYS_execve {
            break;
        }
        program.step();
        stops += 1;
        if program.call() == libc::SYS_ppoll {
            drop(answer(&listener, b"A=second\0"));
            break;
        }
    }
    (stops, program.finish())
}

/// The daemon's steps at this stop, as [`devbox_launch_proto`] orders them. The program is at rest meanwhile, and has received
/// its answer at every stop but the first.
fn withdraw(pages: &mut Mapping, times: Times, stop: usize) {
    if times.mark == stop {
        pages.write(STRINGS.len(), &[WITHDRAWN]);
    }
    if times.ask == 0 && times.wipe == stop {
        pages.write(0, &[0; STRINGS.len()]);
    }
}

/// Takes a request and sends these strings by descriptor. Returns the daemon's mapping of them.
fn answer(listener: &UnixListener, strings: &[u8]) -> Mapping {
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; HEADER_LEN]).unwrap();
    let (file, mapping) = open_secret_file(&[strings, &[0]].concat());
    let header = header(Answer::Descriptor, 1, strings.len());
    let rights = [ControlMessage::ScmRights(&[file.as_raw_fd()])];
    let parts = [IoSlice::new(&header)];
    sendmsg::<()>(stream.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    mapping.unwrap()
}

/// The program, stopped before and after each of its system calls.
struct Traced(Child);

impl Traced {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["-c", "kill -STOP $$ && exec \"$@\"", "sh"]).arg(released());
        let child = command.arg("--socket").arg(socket).args(["--clear-env", "/usr/bin/env", "-0"]).spawn();
        let program = Self(child.unwrap());
        waitpid(program.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        ptrace::seize(program.pid(), ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        kill(program.pid(), Signal::SIGCONT).unwrap();
        program
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// Runs it to its next stop at a system call.
    fn step(&self) {
        loop {
            ptrace::syscall(self.pid(), None).unwrap();
            match waitpid(self.pid(), None).unwrap() {
                WaitStatus::PtraceSyscall(_) => return,
                WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => {}
                ended => panic!("{ended:?}"),
            }
        }
    }

    /// Takes the stop by which the kernel reports that it continues under the tracer.
    fn start_tracing(&self) {
        assert!(matches!(waitpid(self.pid(), None).unwrap(), WaitStatus::PtraceEvent(..)));
    }

    /// Runs it until it is about to make this system call.
    fn run_to(&self, call: i64) {
        while self.call() != call {
            self.step();
        }
    }

    /// The number of the system call that it is stopped at (proc_pid_syscall(5)).
    fn call(&self) -> i64 {
        let text = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid())).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// Lets it run to its end. Returns its command's environment.
    fn finish(self) -> Vec<String> {
        ptrace::detach(self.pid(), None).unwrap();
        let output = self.0.wait_with_output().unwrap();
        environment(success(&output))
    }
}
