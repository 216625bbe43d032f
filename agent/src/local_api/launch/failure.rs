//! How a connection ends without variables.

use std::io;

use super::refusal::Refusal;

/// Why there was no answer, or no good one.
#[derive(Debug)]
pub(super) enum Failure {
    /// The peer is told why.
    Refused(Refusal),
    /// The peer went away; nobody is there to be told.
    Gone,
    /// The peer did not send its request, or did not read its answer, in time.
    Slow(&'static str),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reading from and writing to a connected Unix socket fails only when the peer has gone.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}
