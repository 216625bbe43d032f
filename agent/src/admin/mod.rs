//! What an operator may ask of a running daemon, on a local socket: its health and its status. Never a value.
//!
//! - [`explain`]: `GET /explain`: what a process would get, and by which rule;
//! - [`server`]: these and `GET /healthz` and `GET /status` over HTTP/1.1, for the daemon's own user and root;
//! - [`report`]: what `/status` answers; [`client`]: asks for it; [`table`]: prints it for people.

pub mod client;
pub mod explain;
pub mod report;
pub mod server;
pub mod table;

pub use report::Report;
pub use server::Admin;
