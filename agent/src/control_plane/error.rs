//! Errors of requests to the control plane, each with its remedy.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::tls;
use super::url::ServerUrl;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The host has no address.
    #[error("no address found for {host}: check the server's URL and this devbox's DNS")]
    Resolve {
        /// The name that was looked up.
        host: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// TCP connections to all addresses failed.
    #[error("no connection to {url}: is the server running, and is it reachable from this devbox?")]
    Connect {
        /// The server.
        url: ServerUrl,
        /// The last address's error.
        #[source]
        source: io::Error,
    },
    /// The connection, or the answer, timed out.
    #[error("{url} did not answer within {} s: is it overloaded, or does a firewall drop packets?", after.as_secs())]
    Timeout {
        /// The server.
        url: ServerUrl,
        /// The time-out.
        after: Duration,
    },
    /// The handshake failed.
    #[error("TLS with {url} failed: {}", tls::remedy(source))]
    Tls {
        /// The server.
        url: ServerUrl,
        /// rustls' error.
        #[source]
        source: rustls::Error,
    },
    /// The server is not the one that the join token pins.
    #[error(
        "{url} is not the server that the join token was made for: check the URL, or register the devbox there"
    )]
    OtherServer {
        /// The server.
        url: ServerUrl,
    },
    /// The connection broke.
    #[error("the connection to {url} broke")]
    Broken {
        /// The server.
        url: ServerUrl,
        /// The error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is over the size limit.
    #[error("the answer from {url} has more than {limit} bytes: raise [memory] limit, or bind fewer secrets")]
    TooLarge {
        /// The server.
        url: ServerUrl,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl TransportError {
    pub(super) fn tls(url: ServerUrl, source: rustls::Error) -> Self {
        if tls::is_wrong_pin(&source) { Self::OtherServer { url } } else { Self::Tls { url, source } }
    }

    /// A stable word for metrics.
    #[must_use]
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::Tls { .. } => "tls",
            Self::OtherServer { .. } => "other_server",
            Self::Broken { .. } => "broken",
            Self::TooLarge { .. } => "too_large",
        }
    }

    /// Whether retries are useless until an operator changes something.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::OtherServer { .. } => true,
            Self::Tls { source, .. } => tls::is_permanent(source),
            _ => false,
        }
    }
}
