//! What an operator may ask of a running daemon, on a local socket: its health, its status, and to sleep and to wake. Never a
//! value.
//!
//! - [`explain`]: `GET /explain`: what a process would get, and by which rule;
//! - [`server`]: these, `GET /healthz`, `GET /status`, `POST /quiesce` and `POST /resume` over HTTP/1.1, for the daemon's own
//!   user and root; `token`: the join token that `/resume` brings;
//!   `scrape`: `GET /metrics` and `POST /reload`;
//! - [`report`]: what `/status` answers; [`client`]: asks for it; [`resumed`]: waits for it; [`table`]: prints it for people.

pub mod client;
pub mod explain;
pub mod report;
pub mod resumed;
mod scrape;
pub mod server;
pub mod table;
mod token;

pub use report::Report;
pub use server::Admin;
