//! The admin socket: health, status, metrics and commands for operators, over HTTP/1.1. Never a value.
//!
//! - [`server`]: serves the daemon's own user and root, and nobody else;
//! - `routes`: the paths and their handlers; [`explain`]: `GET /explain`; `token`: the body of `POST /resume`;
//! - [`client`]: the other end, for the command line; [`wait`]: waits until the daemon serves again.

pub mod client;
pub mod explain;
mod reply;
mod routes;
pub(crate) mod server;
mod token;
pub mod wait;

pub(crate) use routes::Admin;
