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
mod facts;
mod namespace;
mod obstacle;
mod process;
mod unit;

#[cfg(test)]
mod tests;

pub use cgroups::Cgroups;
pub use digest::{Digest, InvalidDigest};
#[cfg(test)]
pub(crate) use examiner::ByHand;
pub use examiner::Examiner;
pub use executable::Executable;
pub use facts::{ExecutableQuestion, Facts, Learned, Questions};
pub use namespace::{household, is_anonymous_group, is_anonymous_user};
pub use obstacle::Obstacle;
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
    pub fn of(socket: &impl AsFd) -> Result<Self, nix::Error> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, gid {}, pid {}", self.uid, self.gid, self.pid)
    }
}
