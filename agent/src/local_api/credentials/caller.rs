//! Verifies by what the kernel reports that systemd is the peer.

use tokio::net::UnixStream;

use super::address::Question;
use super::refusal::Refusal;
use crate::access::peer::{Cgroups, Learned, Obstacle, Peer, Process};
use crate::sys::BootTime;

/// The request on `stream`, if systemd makes it on behalf of the unit that it names: the peer is
/// root, and in that unit's own cgroup.
pub(super) fn question(stream: &UnixStream, cgroups: &Cgroups) -> Result<Question, Refusal> {
    let peer = Peer::of(stream).map_err(|errno| Refusal::Peer(errno.into()))?;
    let process = Process::of_peer(stream, peer, BootTime::now());
    let question = asked(stream)?;
    if peer.uid != 0 {
        return Err(Refusal::NotSystemd { uid: peer.uid, unit: question.unit });
    }
    // This order matters: until the process has ended, no other one gets its PID.
    let is_in_unit = cgroups.has(&question.unit, peer.pid);
    if !is_in_unit || has_ended(&process) {
        return Err(Refusal::OtherUnit { pid: peer.pid, unit: question.unit });
    }
    Ok(question)
}

fn asked(stream: &UnixStream) -> Result<Question, Refusal> {
    let address = stream.peer_addr().map_err(Refusal::Peer)?;
    Ok(Question::parse(address.as_abstract_name().unwrap_or_default())?)
}

/// Before Linux 6.5 and without `/proc/PID`, the PID alone identifies the peer. Only root can
/// connect to this socket, so only root could exploit PID reuse.
fn has_ended(process: &Learned<Process>) -> bool {
    match process {
        Ok(process) => !process.is_running(),
        Err(obstacle) => !matches!(obstacle, Obstacle::Hidden(_)),
    }
}
