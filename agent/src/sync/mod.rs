//! Keeps what the daemon holds as current as the control plane allows, and ends service when it must.
//!
//! - [`poll`]: asks for the bundle, again and again, and takes it up;
//! - `continuity`: how each request follows on the last one;
//! - [`guard`]: wipes at the end of the lease or of the certificate, whatever the network does;
//! - [`progress`]: how that goes, for `status`.

mod continuity;
mod error;
pub mod guard;
pub mod poll;
pub mod progress;

pub use error::SyncError;
pub use poll::{Pace, Poller};
pub use progress::Progress;
