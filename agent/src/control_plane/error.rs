//! Why the control plane did not answer, each with its remedy.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::tls;
use super::url::ServerUrl;

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The host has no address.
    #[error("no address found for {host}: check the server's URL and this devbox's DNS")]
    Resolve {
        /// The name that was looked up.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// TCP to none of the addresses.
    #[error("no connection to {url}: is the server running, and is it reachable from this devbox?")]
    Connect {
        /// The server.
        url: ServerUrl,
        /// What the last address said.
        #[source]
        source: io::Error,
    },
    /// No connection, or no answer, in time.
    #[error("{url} did not answer within {} s: is it overloaded, or does a firewall drop packets?", after.as_secs())]
    Timeout {
        /// The server.
        url: ServerUrl,
        /// How long was waited.
        after: Duration,
    },
    /// The handshake failed.
    #[error("TLS with {url} failed: {}", tls::remedy(source))]
    Tls {
        /// The server.
        url: ServerUrl,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The handshake found another server than the one that is pinned.
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
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is longer than was asked for.
    #[error("the answer of {url} has more than {limit} bytes: raise [memory] limit, or bind fewer secrets")]
    TooLarge {
        /// The server.
        url: ServerUrl,
        /// The bound, in bytes.
        limit: usize,
    },
}

impl TransportError {
    /// A failed handshake with `url`.
    pub(super) fn tls(url: ServerUrl, source: rustls::Error) -> Self {
        if tls::is_wrong_pin(&source) { Self::OtherServer { url } } else { Self::Tls { url, source } }
    }

    /// A stable word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
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

    /// Whether it stays so until somebody changes something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::OtherServer { .. } => true,
            Self::Tls { source, .. } => tls::is_permanent(source),
            _ => false,
        }
    }
}
