//! HTTP: a request becomes a call of the [`registry`](crate::registry), and its result the
//! response.
//!
//! - [`listener`]: sockets, TLS, limits; one accept loop for both listeners;
//! - [`public`]: the Secrets API and the registry of devboxes, one table of routes;
//! - [`devbox`]: the daemons' routes, over mutual TLS;
//! - [`admin`]: metrics and health checks;
//! - [`openapi`]: the OpenAPI document of the public listener.

pub(crate) mod admin;
mod admission;
mod answer;
mod body;
mod connection;
mod delivery;
pub(crate) mod devbox;
mod devboxes;
mod error;
mod host;
mod json;
pub(crate) mod listener;
mod load;
mod observe;
pub mod openapi;
mod parse_errors;
pub mod public;
mod query;
mod sampled;
mod secrets;
