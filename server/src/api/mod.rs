//! HTTP: what is on the wire becomes a question to the [`registry`](crate::registry), and its answer goes back.
//!
//! - [`listener`]: sockets, TLS, limits; one accept loop for both listeners;
//! - [`public`]: the Secrets API and the registry of devboxes, one table of routes;
//! - [`devbox`]: what daemons call, over mutual TLS;
//! - [`admin`]: what monitoring asks;
//! - [`openapi`]: the document that says what the public listener does.

pub mod admin;
mod admission;
mod answer;
mod body;
mod connection;
mod delivery;
pub mod devbox;
mod devboxes;
mod error;
mod host;
mod json;
pub mod listener;
mod load;
mod observe;
pub mod openapi;
mod parse_errors;
pub mod public;
mod query;
mod sampled;
mod secrets;
