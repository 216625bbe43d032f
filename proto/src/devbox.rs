//! The JSON messages of the devbox listener. They carry no plaintext; the join token travels as
//! `Authorization: Bearer`, outside them.

use serde::{Deserialize, Serialize};

/// Redeems a join token (sent as `Authorization: Bearer`) for a certificate: [`EnrollRequest`] → [`IssuedIdentity`].
pub const ENROLL_PATH: &str = "/v1/devbox/enroll";
/// A new certificate for the client certificate's own devbox: [`EnrollRequest`] → [`IssuedIdentity`].
pub const RENEW_PATH: &str = "/v1/devbox/renew";
/// The devbox's sealed values: [`BundleRequest`] → [`crate::bundle`] or `204 No Content`.
pub const BUNDLE_PATH: &str = "/v1/devbox/bundle";

/// Media type of a bundle.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.devbox-secrets.bundle";

/// Longest time that the server holds a bundle request, in milliseconds.
pub const MAX_WAIT_MS: u32 = 60_000;

/// Body of [`ENROLL_PATH`] and [`RENEW_PATH`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// Certificate signing request (PKCS #10, PEM). Its common name is the devbox id; a request for another devbox is
    /// refused.
    pub csr: String,
}

/// A devbox's new identity.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedIdentity {
    /// The devbox that the certificate names.
    pub devbox_id: String,
    /// The devbox's certificate (PEM), SAN `spiffe://<trust domain>/devbox/<id>`.
    pub certificate: String,
    /// Certificates of the devbox CA to trust from now on (PEM, one or more).
    pub ca: String,
}

/// Body of [`BUNDLE_PATH`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRequest {
    /// The daemon's ephemeral X-Wing public key, base64 (RFC 4648 section 4).
    pub hpke_public_key: String,
    /// The revision that the daemon has; `None` on its first request.
    #[serde(default)]
    pub known_revision: Option<u64>,
    /// How long to hold the request when nothing has changed, in milliseconds; at most [`MAX_WAIT_MS`].
    #[serde(default)]
    pub wait_ms: u32,
    /// The step that links this request to the daemon's last one.
    pub continuity: Continuity,
}

/// One step of an identity. It distinguishes two machines that continue with one identity (a snapshot that was started
/// twice): each request names the step that was last answered and a fresh one, and only one machine knows both.
///
/// The daemon repeats a step until it is answered (2xx), so a lost answer does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuity {
    /// SHA-256 over machine and boot identity, in hexadecimal ([`BOOT_LEN`] digits): the same after the daemon's restart, another after the
    /// machine's.
    pub boot: String,
    /// The step that was last answered; `None` on the first request of a process.
    #[serde(default)]
    pub after: Option<String>,
    /// This request's own step: random, in hexadecimal ([`STEP_LEN`] digits).
    pub step: String,
}

/// Hexadecimal digits of [`Continuity::boot`].
pub const BOOT_LEN: usize = 64;

/// Hexadecimal digits of [`Continuity::step`]: 128 random bits.
pub const STEP_LEN: usize = 32;

/// [`ErrorBody::code`], with 403: another machine has continued with this identity. Only a new join token helps.
pub const CONTINUED_ELSEWHERE: &str = "continued_elsewhere";

/// [`ErrorBody::code`], with 403: another machine is using this identity right now. It may be the same one before its reset, so trying again
/// is right.
pub const IN_USE_ELSEWHERE: &str = "in_use_elsewhere";

/// Body of every error of either listener.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable word for programs.
    pub code: String,
    /// The problem and its remedy, for people. Repeats no value and no token.
    pub message: String,
}
