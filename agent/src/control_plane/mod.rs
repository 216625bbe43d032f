//! How the daemon speaks to the control plane: one HTTP/1.1 connection over TLS 1.3, kept while it works.
//!
//! - [`url`]: where it is;
//! - [`tls`]: what every connection to it must be; [`pin`]: how the first one trusts the server, by a join token;
//! - [`client`]: one request at a time, each with a deadline and a bound on its answer; `link`: what carries it;
//!   [`reply`], [`error`]: its ends;
//! - [`backoff`]: how long to wait after a failure.

pub mod backoff;
pub mod client;
pub mod error;
mod link;
pub mod pin;
pub mod reply;
pub mod tls;
pub mod url;
mod watched;

pub use backoff::Backoff;
pub use client::{Client, Post};
pub use error::TransportError;
pub use reply::{Refusal, Reply};
pub use url::ServerUrl;
