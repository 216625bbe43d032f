//! The real server and daemon as children, stopped by their process ids when they go out of scope.

mod daemon;
mod running;
mod server;

pub use daemon::Daemon;
pub use server::Server;
