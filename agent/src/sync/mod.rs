//! Keeps what the daemon holds as current as the control plane allows, and ends service when it must.
//!
//! - [`life`]: joins, polls, is quiesced, resumes; [`orders`]: what an operator orders of it;
//! - `replaced`: certificate files that are replaced on the disk;
//! - [`poll`]: asks for the bundle, again and again, and takes it up;
//! - `continuity`: how each request follows on the last one;
//! - [`guard`]: wipes at the end of the lease or of the certificate, whatever the network does;
//! - [`progress`]: how that goes, for `status`.

mod continuity;
mod error;
pub mod guard;
pub mod life;
pub mod orders;
pub mod poll;
pub mod progress;
mod renewal;
mod replaced;
mod report;

pub use error::SyncError;
pub use life::Life;
pub use orders::{OrderError, Orders};
pub use poll::{Pace, Poller};
pub use progress::{Failure, Progress, Timings};
