//! The process at the other end of a local socket, by what the kernel reports about it. Claims of
//! the peer itself count for nothing.
//!
//! - [`Peer`]: user, group and process id at the connection. They cost one system call and settle
//!   most rules;
//! - [`Process`]: the process itself, safe from PID reuse;
//! - [`UnitName`], [`UnitPattern`] and [`Cgroups`]: systemd units and their processes;
//! - [`Executable`] and [`Digest`]: the program that a process runs;
//! - [`Examiner`] answers [`Questions`] about a process with [`Facts`]; an [`Obstacle`] is why a
//!   fact is unknown.

mod cgroups;
mod digest;
mod examiner;
mod executable;
mod namespace;
mod obstacle;
mod process;
mod unit;

#[cfg(test)]
mod tests;

pub(crate) use cgroups::Cgroups;
pub use digest::{Digest, InvalidDigest};
#[cfg(test)]
pub(crate) use examiner::ByHand;
pub(crate) use examiner::Examiner;
pub(crate) use executable::Executable;
pub(crate) use namespace::{household, is_anonymous_group, is_anonymous_user};
pub(crate) use obstacle::Obstacle;
pub use process::Process;
pub use unit::{InvalidUnitName, InvalidUnitPattern, UnitName, UnitPattern};

use std::fmt;
use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// The process that connected, at the moment when it connected (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective primary group id; supplementary groups are not in it.
    pub gid: u32,
    /// Process id in this daemon's namespace; 0 for a process outside it. Ids are reused: see
    /// [`Process`].
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel for the peer of a connected Unix socket.
    ///
    /// # Errors
    /// The system call's error, if `socket` is not a connected Unix socket.
    pub(crate) fn of(socket: &impl AsFd) -> Result<Self, nix::Error> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, gid {}, pid {}", self.uid, self.gid, self.pid)
    }
}

/// A fact, or why it is unknown.
pub(crate) type Learned<T> = Result<T, Obstacle>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Questions {
    pub units: Vec<UnitPattern>,
    pub executables: Vec<ExecutableQuestion>,
    /// Its executable even if it is none of those, for explanations.
    pub any_executable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecutableQuestion {
    pub path: String,
    pub digest: bool,
}

impl Questions {
    /// Asks whether the process runs the file at `path`, and for the file's contents if `digest`.
    pub(crate) fn add_executable(&mut self, path: &str, digest: bool) {
        match self.executables.iter_mut().find(|question| question.path == path) {
            Some(question) => question.digest |= digest,
            None => self.executables.push(ExecutableQuestion { path: path.to_owned(), digest }),
        }
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.executables.is_empty() && !self.any_executable
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub peer: Peer,
    /// Its unit of the system manager; `None` if it is in no unit that was asked for.
    pub unit: Learned<Option<UnitName>>,
    pub executable: Learned<Executable>,
}

impl Facts {
    #[must_use]
    pub(crate) const fn of(peer: Peer) -> Self {
        Self { peer, unit: Err(Obstacle::NotAsked), executable: Err(Obstacle::NotAsked) }
    }

    /// The ids alone: `obstacle` hides all else.
    #[must_use]
    pub(crate) const fn unknown(peer: Peer, obstacle: Obstacle) -> Self {
        Self { peer, unit: Err(obstacle), executable: Err(obstacle) }
    }

    /// The digest of its executable.
    ///
    /// # Errors
    /// Why it is unknown.
    pub(crate) fn digest(&self) -> Learned<Digest> {
        self.executable.as_ref().map_err(|obstacle| *obstacle)?.digest
    }
}
