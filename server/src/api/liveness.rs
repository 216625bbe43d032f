//! Noticing that the other end of a connection is gone, though it never said so: a machine that was reset or cut off.

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Silence after which the other end is asked whether it is there, and time between two such questions, in seconds.
const PROBE_SECONDS: u32 = 5;
/// How many questions may stay without an answer.
const PROBES: u32 = 3;
/// Longest time that sent bytes may stay without an acknowledgement, in milliseconds: as long as the probes take.
const UNACKNOWLEDGED_MS: u32 = (PROBES + 1) * PROBE_SECONDS * 1000;

/// Lets the kernel end the connection about 20 seconds after its other end was last heard of (tcp(7), `TCP_KEEPIDLE`,
/// `TCP_USER_TIMEOUT`).
///
/// # Errors
/// The socket's, most likely that the connection has ended.
pub(super) fn end_when_unheard(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)
}
