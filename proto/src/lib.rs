//! Types and framing that the control plane and the daemon share. No I/O.
//!
//! - [`name`]: what a secret may be called, and how large its value may be;
//! - [`guarded`]: names that steer what programs load, run or trust;
//! - [`secret`]: the only type that holds a plaintext outside locked memory;
//! - [`join_token`]: the one-time credential a devbox boots with;
//! - [`ca_name`]: how a devbox that has only such a token says whom it trusts;
//! - [`seal`]: HPKE (RFC 9180), so that a value stays sealed inside mTLS;
//! - [`bundle`]: the wire format of a devbox's sealed values at one revision;
//! - [`devbox`]: the JSON messages of the devbox listener.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod ca_name;
pub mod devbox;
pub mod guarded;
pub mod join_token;
pub mod name;
pub mod seal;
pub mod secret;
