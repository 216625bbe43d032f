//! Who asks: believed only from what the kernel says of the connection.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;
use tokio::net::UnixStream;

use super::address::Question;
use super::cgroups::Cgroups;
use super::refusal::Refusal;
use crate::peer::Peer;

/// The question on `stream`, once it is certain that systemd asks it, on behalf of the unit that it names: the peer is
/// root, and in that unit's own cgroup.
pub(super) fn question(stream: &UnixStream, cgroups: &Cgroups) -> Result<Question, Refusal> {
    let peer = Peer::of(stream).map_err(|errno| Refusal::Peer(errno.into()))?;
    let handle = Handle::of(stream);
    let question = asked(stream)?;
    if peer.uid != 0 {
        return Err(Refusal::NotSystemd { uid: peer.uid, unit: question.unit });
    }
    if !cgroups.has(&question.unit, peer.pid) || handle.has_ended() {
        return Err(Refusal::OtherUnit { pid: peer.pid, unit: question.unit });
    }
    Ok(question)
}

fn asked(stream: &UnixStream) -> Result<Question, Refusal> {
    let address = stream.peer_addr().map_err(Refusal::Peer)?;
    Ok(Question::parse(address.as_abstract_name().unwrap_or_default())?)
}

/// Holds the peer's process id: as long as the process has not ended, no other one has its number.
///
/// Linux 6.5 and later. Before, the number alone is looked up: only root can reach this socket, and only root could win
/// that race.
struct Handle(Option<OwnedFd>);

impl Handle {
    fn of(stream: &UnixStream) -> Self {
        Self(getsockopt(&stream.as_fd(), PeerPidfd).ok())
    }

    /// A pidfd is readable once its process has ended (pidfd_open(2)).
    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.0 else { return false };
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
    }
}
