//! Types and framing that the control plane and the daemon share. No I/O.
//!
//! - [`name`]: valid names of secrets, and the largest value;
//! - [`guarded`]: names through which programs load code, options or trust;
//! - [`secret`]: the only type that holds a plaintext outside locked memory;
//! - [`join_token`]: the one-time credential a devbox boots with;
//! - [`ca_name`]: the name of a CA of which a devbox knows only the fingerprint;
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
