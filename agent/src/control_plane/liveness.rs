//! Noticing that the control plane lost a connection, though it never said so.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Silence after which the other end is asked whether it is there, and time between two such questions, in seconds. One that knows
/// nothing of the connection ends it by its answer.
const PROBE_SECONDS: u32 = 5;
/// How many questions may stay without an answer.
const PROBES: u32 = 3;
/// Longest time that sent bytes may stay without an acknowledgement, in milliseconds: as long as the questions take.
const UNACKNOWLEDGED_MS: u32 = (PROBES + 1) * PROBE_SECONDS * 1000;

/// Lets the kernel end the connection about 20 seconds after its other end was last heard of (tcp(7), `TCP_KEEPIDLE`,
/// `TCP_USER_TIMEOUT`): far sooner than a held request's deadline, so that no revocation is waited for on a dead connection.
///
/// # Errors
/// The socket's, most likely that the connection has ended.
pub(super) fn end_when_unheard(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?)
}
