//! The kernel's side of the daemon: clocks.

mod clock;

pub use clock::{BootTime, now_ms};
