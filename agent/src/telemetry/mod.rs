//! The daemon's output: log lines on standard error, the audit, and its state for the service
//! manager.
//!
//! No secret reaches any of them: types that hold one cannot be printed (`SecretBytes`, redacted
//! `Debug`).

pub(crate) mod audit;
pub mod log;
pub(crate) mod service_manager;
#[cfg(test)]
pub(crate) mod test_support;

pub use devbox_secrets_common::log::stderr;
pub use devbox_secrets_common::text::chain;
