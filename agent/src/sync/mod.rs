//! Keeps the secrets as current as the control plane allows, and stops service when it must.
//!
//! - [`lifecycle`]: joins, polls, is quiesced, resumes; [`commands`]: how operators ask for that;
//! - [`poll`]: the long poll for bundles; `continuity`: how each of its requests follows the last one;
//! - `renewal`, `certificate_files`: the next certificate, from the server or from replaced files;
//! - [`expiry`]: wipes when the lease or the certificate expires, whatever the network does;
//! - [`progress`]: the synchronisation's state, for `status`; `report`: its audit events.
//!
//! A lifecycle phase owns the identity, the request key and the connection. The vault's [`Loss`](crate::memory::Loss) says why
//! there are no secrets, so phase and loss together are the daemon's state:
//!
//! ```text
//!            join token or identity                     first bundle
//!   start ──────────────────────────▶ joining, polling ──────────────▶ polling
//!                                     Starting              ▲          serves
//!                                                           │             │
//!        lease expires, or a new bundle does not fit:       │             │
//!        Stale, Starting: the same phase polls on;          └─────────────┤
//!        401/403 or the certificate expires: Revoked,                     │
//!        polls on, for the operator may start the devbox again            │
//!                                                                         │
//!        quiesce (from any state) ───▶ Quiesced ◀── resume fails ─┐       │
//!        machine or server sees a clone: Cloned ◀─────────────────┼───────┘
//!             no phase: no identity, no key, no connection        │
//!             and no bundle is accepted until resume ─────────────┴──▶ joining (Starting)
//!
//!   stop (from any state): Stopping
//! ```

mod certificate_files;
pub(crate) mod commands;
mod continuity;
mod error;
pub mod expiry;
pub(crate) mod lifecycle;
pub(crate) mod poll;
pub(crate) mod progress;
mod renewal;
mod report;

pub(crate) use commands::{CommandQueue, Commands};
pub(crate) use error::SyncError;
pub(crate) use lifecycle::Lifecycle;
pub use poll::{PollTimes, Poller};
pub use progress::{Failure, Progress, Timings};
