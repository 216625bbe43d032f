//! The real program against a small daemon's end of the socket.
#![expect(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod build;
mod commands;
mod cost;
mod hostile;
mod launches;
mod listing;
mod peer;
mod run;
mod secret_file;
mod sizes;
mod streams;
mod transport;
mod waiting;
mod withdrawal;
