//! The server as its clients see it: real sockets, real TLS, the real program.

mod devbox_listener;
mod devboxes_api;
mod memory;
mod openapi;
mod program;
mod secrets_api;
mod support;
