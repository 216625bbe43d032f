//! Who is at the other end of a local socket, as the kernel says it. What the peer says of itself is never asked.

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
    /// Process id in this daemon's namespace; 0 for a process outside it. For the log only: ids are reused.
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel for the peer of a connected Unix socket.
    ///
    /// # Errors
    /// The system call's error, for what is not a connected Unix socket.
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getegid, geteuid};

    use super::*;

    #[test]
    fn the_kernel_names_this_process_as_its_own_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(peer, Peer { uid: geteuid().as_raw(), gid: getegid().as_raw(), pid: own });
    }
}
