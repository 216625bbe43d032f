//! The connection to the control plane: HTTP/1.1 over TLS 1.3, one persistent connection.
//!
//! - [`url`]: its address;
//! - [`tls`]: the TLS configuration; [`pin`]: the trust that a join token gives to the first connection;
//! - [`client`]: one request at a time, each with a deadline and a size limit; `link`: its connection; `watched`: records when
//!   answers arrive; [`reply`], [`error`]: the outcome;
//! - [`backoff`]: the wait after a failure.

pub(crate) mod backoff;
pub(crate) mod client;
pub(crate) mod error;
mod link;
pub(crate) mod pin;
pub(crate) mod reply;
pub mod tls;
pub(crate) mod url;
mod watched;

pub(crate) use backoff::Backoff;
pub use client::{Client, Post};
pub use error::TransportError;
pub use reply::{Refusal, Reply};
pub use url::ServerUrl;
