//! What an operator may ask of a running daemon, on a local socket: its health, its status, and to sleep and to wake. Never a
//! value.
//!
//! - [`server`]: who may ask, over HTTP/1.1: the daemon's own user and root;
//! - `routes`: the requests and their answers; `scrape`: metrics and reload; [`explain`]: what a
//!   process would get, and by which rule; `token`: the join token that `POST /resume` brings;
//! - [`client`]: asks; [`resumed`]: waits until the daemon serves again.

pub mod client;
pub mod explain;
mod reply;
pub mod resumed;
mod routes;
mod scrape;
pub mod server;
mod token;

pub use routes::Admin;
