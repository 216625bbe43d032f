//! What an operator may ask of a running daemon, on a local socket: its health, its status, and to sleep and to wake. Never a
//! value.
//!
//! - [`server`]: who may ask, over HTTP/1.1: the daemon's own user and root;
//! - `routes`: what is answered; `status` puts together what `GET /status` says, `scrape` what `GET /metrics` says; [`explain`]: what a
//!   process would get, and by which rule; `token`: the join token that `POST /resume` brings;
//! - [`report`]: the form of a status; [`client`]: asks for it; [`resumed`]: waits for it; [`table`]: prints it for people.

pub mod client;
pub mod explain;
mod reply;
pub mod report;
pub mod resumed;
mod routes;
mod scrape;
pub mod server;
mod status;
pub mod table;
mod token;

pub use report::Report;
pub use routes::Admin;
