//! A handle of one process, safe from PID reuse. Facts that are read by PID count only if the
//! process still runs *after* the reading, because until it is reaped no other process gets its
//! PID.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;
use nix::sys::stat::Mode;

use super::{Obstacle, Peer};
use crate::sys::BootTime;

/// Milliseconds of a clock tick of proc(5) (`USER_HZ` is 100 on every architecture that this is built for).
const TICK_MS: u64 = 10;
/// Bytes that are read of a file of `/proc/PID`: more than all of `stat`, and enough for the ids in
/// `status`.
const MAX_FILE: u64 = 4_096;

/// A process that is never mistaken for another one.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    anchor: Anchor,
}

/// The means against PID reuse.
#[derive(Debug)]
enum Anchor {
    /// The kernel's handle of the peer (`SO_PEERPIDFD`, Linux 6.5).
    Pidfd(OwnedFd),
    /// Its directory in `/proc`, which fails once the process has ended, and its start, in ticks
    /// since boot.
    Directory { directory: OwnedFd, started: u64 },
    /// Only its PID: for explanations.
    Nothing,
}

impl Process {
    /// The process that connected `socket`, which was accepted at `accepted`.
    ///
    /// Before Linux 6.5 the process is looked up by PID, and not believed if it started after the
    /// connection was accepted. A race remains there: the PID may be reused while the connection
    /// waits in the kernel's queue.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub(crate) fn of_peer(socket: &impl AsFd, peer: Peer, accepted: BootTime) -> Result<Self, Obstacle> {
        match getsockopt(&socket.as_fd(), PeerPidfd) {
            Ok(pidfd) => Ok(Self { pid: peer.pid, anchor: Anchor::Pidfd(pidfd) }),
            Err(errno) => match why_no_handle(errno) {
                Some(obstacle) => Err(obstacle),
                None => Self::by_directory(peer.pid, accepted),
            },
        }
    }

    /// The process that has this PID now.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub fn with_id(pid: i32) -> Result<Self, Obstacle> {
        // No bound: it may have started within the present tick.
        Self::by_directory(pid, BootTime::from_millis(u64::MAX))
    }

    /// The process with this PID, even if `/proc` hides it. For explanations only, because nothing
    /// guards against PID reuse then.
    #[must_use]
    pub(crate) fn to_explain(pid: i32) -> Self {
        Self::with_id(pid).unwrap_or(Self { pid, anchor: Anchor::Nothing })
    }

    pub(super) fn by_directory(pid: i32, accepted: BootTime) -> Result<Self, Obstacle> {
        let directory = open_directory(pid)?;
        let started = start_of(&directory).ok_or(Obstacle::Ended)?;
        // A process that started after the connection is another one with the peer's PID.
        if started.saturating_mul(TICK_MS) > accepted.as_millis() {
            return Err(Obstacle::Ended);
        }
        Ok(Self { pid, anchor: Anchor::Directory { directory, started } })
    }

    /// Its PID in the daemon's namespace; 0 or less for a process outside it.
    #[must_use]
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        match &self.anchor {
            // A pidfd is readable once its process has ended (pidfd_open(2)).
            Anchor::Pidfd(pidfd) => {
                let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                // A signal interrupted the call, which proves nothing about the process.
                loop {
                    match poll(&mut polled, PollTimeout::ZERO) {
                        Err(Errno::EINTR) => {}
                        outcome => return outcome == Ok(0),
                    }
                }
            }
            Anchor::Directory { directory, started } => start_of(directory) == Some(*started),
            Anchor::Nothing => true,
        }
    }

    /// Its effective ids, as a peer has them (proc_pid_status(5)).
    ///
    /// # Errors
    /// [`Obstacle`].
    pub fn owner(&self) -> Result<Peer, Obstacle> {
        let status = read(&self.directory()?, "status").ok_or(Obstacle::Ended)?;
        let status = String::from_utf8_lossy(&status);
        let effective = |name: &str| {
            let ids = status.lines().find_map(|line| line.strip_prefix(name))?;
            ids.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        let owner = effective("Uid:").zip(effective("Gid:"));
        owner.map(|(uid, gid)| Peer { uid, gid, pid: self.pid }).ok_or(Obstacle::Ended)
    }

    /// Its directory in `/proc`, which fails once the process has ended.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub(crate) fn directory(&self) -> Result<OwnedFd, Obstacle> {
        match &self.anchor {
            Anchor::Pidfd(_) => {
                // Opened by PID, then checked: if the process still runs, the directory is its own.
                let directory = open_directory(self.pid);
                if self.is_running() { directory } else { Err(Obstacle::Ended) }
            }
            Anchor::Nothing => open_directory(self.pid),
            Anchor::Directory { directory, .. } => {
                directory.try_clone().map_err(|_| Obstacle::NoHandle(Errno::EMFILE))
            }
        }
    }
}

/// The obstacle that `errno` stands for; `None` if the kernel is too old for a handle. Only
/// `ENOPROTOOPT` means that. `EINVAL` is how some kernels report that the process has been reaped,
/// and its PID may be another's by then.
fn why_no_handle(errno: Errno) -> Option<Obstacle> {
    match errno {
        Errno::ENOPROTOOPT => None,
        Errno::EINVAL | Errno::ESRCH => Some(Obstacle::Ended),
        errno => Some(Obstacle::NoHandle(errno)),
    }
}

fn open_directory(pid: i32) -> Result<OwnedFd, Obstacle> {
    if pid <= 0 {
        return Err(Obstacle::OtherNamespace);
    }
    // A handle of this process: reads through it fail when it ends, even if the PID is reused.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, format!("/proc/{pid}").as_str(), flags, Mode::empty()).map_err(Obstacle::Hidden)
}

/// The start of this directory's process; `None` if it has ended.
fn start_of(directory: &OwnedFd) -> Option<u64> {
    parse_start(&read(directory, "stat")?)
}

/// The first bytes of a process's file; `None` if it has ended.
fn read(directory: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Field 22 of proc_pid_stat(5), unless field 3 marks a zombie. The process chooses the name in
/// field 2, so fields are counted from its last parenthesis.
fn parse_start(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat(name: &str, state: &str) -> Vec<u8> {
        format!("7 ({name}) {state} 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 22 23\n").into_bytes()
    }

    #[test]
    fn a_process_name_cannot_shift_the_field_of_its_start() {
        for name in ["x", "a b", ") R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22", "(((", ""] {
            assert_eq!(parse_start(&stat(name, "S")), Some(4711), "{name}");
        }
    }

    #[test]
    fn a_zombie_or_a_truncated_stat_has_no_start() {
        for state in ["Z", "X", "x"] {
            assert_eq!(parse_start(&stat("x", state)), None);
        }
        for text in [&b""[..], b"7", b"7 (x)", b"7 (x) S 1 2 3", b"7 (x) S \xff"] {
            assert_eq!(parse_start(text), None);
        }
    }

    #[test]
    fn a_bare_pid_counts_on_old_kernels_only() {
        assert_eq!(why_no_handle(Errno::ENOPROTOOPT), None);
        assert_eq!(why_no_handle(Errno::EINVAL), Some(Obstacle::Ended));
        assert_eq!(why_no_handle(Errno::ESRCH), Some(Obstacle::Ended));
        assert_eq!(why_no_handle(Errno::EMFILE), Some(Obstacle::NoHandle(Errno::EMFILE)));
    }

    #[test]
    fn a_process_that_started_after_the_accept_is_not_the_peer() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Process::by_directory(own, BootTime::now()).unwrap().is_running());
        let before = BootTime::from_millis(1);
        assert_eq!(Process::by_directory(own, before).unwrap_err(), Obstacle::Ended);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_start(&bytes);
        }
    }
}
