//! The public-key infrastructure of the devboxes: the devbox CAs, the certificates that they sign,
//! and the TLS of both listeners.
//!
//! A CA is made, rotated and retired by [`registry`](crate::registry), which keeps it in the store
//! and audits each step.

mod authorities;
mod ca;
mod certificate_request;
mod client_certificate;
pub(crate) mod tls;

pub(crate) use authorities::{Authorities, CurrentAuthorities};
pub(crate) use authorities::{LoadError, Member};
pub(crate) use ca::{CA_KEY_PURPOSE, CLOCK_SKEW, SignedCertificate};
pub(crate) use ca::{CaError, DevboxCa};
pub(crate) use certificate_request::{CheckedRequest, InvalidRequest};
pub(crate) use client_certificate::ClientCertificate;
