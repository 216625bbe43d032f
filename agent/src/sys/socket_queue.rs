//! The bytes in a Unix socket that its peer has not read yet.
#![allow(unsafe_code, reason = "no safe library offers SIOCOUTQ")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};

/// Whether the peer of the connected Unix socket `socket` has read everything that was sent to it, or has closed its end, which
/// discards the rest (`SIOCOUTQ`, unix(7)). If the kernel cannot tell, the answer counts as read.
#[must_use]
pub(crate) fn has_read_all(socket: &impl AsFd) -> bool {
    let mut left: c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ's number, writes one `int` to the address, and `left` is one that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    Errno::result(result).is_err() || left <= 0
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_answer_counts_as_read_once_all_of_it_is() {
        let (mut ours, mut peer) = UnixStream::pair().unwrap();
        assert!(has_read_all(&ours));
        ours.write_all(b"four").unwrap();
        assert!(!has_read_all(&ours));
        peer.read_exact(&mut [0; 3]).unwrap();
        assert!(!has_read_all(&ours));
        peer.read_exact(&mut [0; 1]).unwrap();
        assert!(has_read_all(&ours));
    }

    #[test]
    fn a_closed_peer_leaves_no_answer_unread() {
        let (mut ours, peer) = UnixStream::pair().unwrap();
        ours.write_all(b"four").unwrap();
        drop(peer);
        assert!(has_read_all(&ours));
    }
}
