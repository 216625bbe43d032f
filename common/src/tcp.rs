//! Noticing that the other end of a connection is gone without having closed it: a machine that was
//! reset or cut off.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Silence before the first keep-alive probe, and between two probes, in seconds. A peer that does
/// not know the connection resets it at the first one.
const PROBE_SECONDS: u32 = 5;
/// Unanswered probes that end the connection.
const PROBES: u32 = 3;
/// Longest time that sent bytes may stay unacknowledged, in milliseconds: as long as the probes
/// take.
const UNACKNOWLEDGED_MS: u32 = (PROBES + 1) * PROBE_SECONDS * 1000;

/// Lets the kernel close the connection about 20 seconds after the last sign of its peer (tcp(7),
/// `TCP_KEEPIDLE`, `TCP_USER_TIMEOUT`).
///
/// # Errors
/// The socket's, most likely that the connection is closed.
pub fn close_when_silent(stream: &impl AsFd) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?)
}
