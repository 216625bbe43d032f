//! Join tokens: `<devbox id>.<secret>.<sha256 of the CA certificate>`.
//!
//! A devbox needs only the server's URL and a join token: the last part pins the devbox CA, so the
//! first connection is already authenticated; the middle part is redeemed once for a certificate.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::SecretBytes;

/// Length of a SHA-256 fingerprint in bytes.
pub const FINGERPRINT_LEN: usize = 32;

/// Longest token that [`JoinToken::parse`] looks at, in bytes.
pub const MAX_TOKEN_LEN: usize = 512;

/// A join token, parsed. The secret part is wiped on drop.
pub struct JoinToken {
    devbox_id: String,
    secret: SecretBytes,
    ca_fingerprint: [u8; FINGERPRINT_LEN],
}

/// Why a text is not a join token. Never repeats the text.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidJoinToken {
    /// Not three parts divided by dots, or longer than [`MAX_TOKEN_LEN`].
    #[error("a join token has the form <devbox id>.<secret>.<sha256 of the CA>; is the whole token there?")]
    Form,
    /// The first part is empty or has characters other than letters, digits, `_` and `-`.
    #[error("the first part of the join token is not a devbox id")]
    DevboxId,
    /// The middle part is empty or has characters other than letters, digits, `_` and `-`.
    #[error("the secret part of the join token is not base64url")]
    Secret,
    /// The last part is not 64 hexadecimal digits.
    #[error("the last part of the join token is not a SHA-256 in hexadecimal")]
    Fingerprint,
}

impl JoinToken {
    /// Puts a token together.
    ///
    /// # Errors
    /// [`InvalidJoinToken`] if a part has characters that the printed form cannot carry.
    pub fn new(
        devbox_id: &str,
        secret: SecretBytes,
        ca_fingerprint: [u8; FINGERPRINT_LEN],
    ) -> Result<Self, InvalidJoinToken> {
        if !is_token_part(devbox_id.as_bytes()) {
            return Err(InvalidJoinToken::DevboxId);
        }
        if !is_token_part(secret.expose_secret()) {
            return Err(InvalidJoinToken::Secret);
        }
        Ok(Self { devbox_id: devbox_id.to_owned(), secret, ca_fingerprint })
    }

    /// Parses the printed form; white space around it is ignored.
    ///
    /// # Errors
    /// [`InvalidJoinToken`], which names the invalid part.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidJoinToken> {
        let text = text.trim_ascii();
        if text.len() > MAX_TOKEN_LEN {
            return Err(InvalidJoinToken::Form);
        }
        let mut parts = text.split(|b| *b == b'.');
        let (Some(id), Some(secret), Some(fingerprint), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidJoinToken::Form);
        };
        let id = std::str::from_utf8(id).map_err(|_| InvalidJoinToken::DevboxId)?;
        let fingerprint = parse_fingerprint(fingerprint).ok_or(InvalidJoinToken::Fingerprint)?;
        Self::new(id, SecretBytes::new(secret.to_vec()), fingerprint)
    }

    /// The devbox that the token is for.
    #[must_use]
    pub fn devbox_id(&self) -> &str {
        &self.devbox_id
    }

    /// The part that proves the right to join once.
    #[must_use]
    pub fn secret(&self) -> &SecretBytes {
        &self.secret
    }

    /// SHA-256 over the DER form of the devbox CA's certificate.
    #[must_use]
    pub fn ca_fingerprint(&self) -> &[u8; FINGERPRINT_LEN] {
        &self.ca_fingerprint
    }

    /// The printed form. Shown once, to the caller who registered the devbox.
    #[must_use]
    pub fn expose_token(&self) -> Zeroizing<String> {
        let mut token = Zeroizing::new(String::with_capacity(MAX_TOKEN_LEN));
        token.push_str(&self.devbox_id);
        token.push('.');
        token.extend(self.secret.expose_secret().iter().map(|b| char::from(*b)));
        token.push('.');
        for byte in self.ca_fingerprint {
            token.push(hex_digit(byte >> 4));
            token.push(hex_digit(byte & 15));
        }
        token
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("devbox_id", &self.devbox_id).finish_non_exhaustive()
    }
}

fn is_token_part(part: &[u8]) -> bool {
    (1..=128).contains(&part.len())
        && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn parse_fingerprint(hex: &[u8]) -> Option<[u8; FINGERPRINT_LEN]> {
    let hex: &[u8; 2 * FINGERPRINT_LEN] = hex.try_into().ok()?;
    let mut fingerprint = [0; FINGERPRINT_LEN];
    for (byte, digits) in fingerprint.iter_mut().zip(hex.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(digits[0])? << 4 | value(digits[1])?).ok()?;
    }
    Some(fingerprint)
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is one hexadecimal digit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new("dbx_1", SecretBytes::new(b"s3cr-et".to_vec()), [0xa5; 32]).unwrap()
    }

    #[test]
    fn the_printed_form_parses_back() {
        let text = format!("  {}\n", *token().expose_token());
        let parsed = JoinToken::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.devbox_id(), "dbx_1");
        assert_eq!(parsed.secret().expose_secret(), b"s3cr-et");
        assert_eq!(parsed.ca_fingerprint(), &[0xa5; 32]);
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert!(!format!("{:?}", token()).contains("s3cr"));
    }

    #[test]
    fn each_broken_part_is_named() {
        let f = "a5".repeat(32);
        let cases = [
            (String::new(), InvalidJoinToken::Form),
            ("dbx.s".to_owned(), InvalidJoinToken::Form),
            (format!("dbx.s.{f}.x"), InvalidJoinToken::Form),
            (format!(".s.{f}"), InvalidJoinToken::DevboxId),
            (format!("dbx..{f}"), InvalidJoinToken::Secret),
            (format!("dbx.s.{}", &f[1..]), InvalidJoinToken::Fingerprint),
            (format!("dbx.s.{}zz", &f[2..]), InvalidJoinToken::Fingerprint),
            ("x".repeat(MAX_TOKEN_LEN + 1), InvalidJoinToken::Form),
        ];
        for (text, error) in cases {
            assert_eq!(JoinToken::parse(text.as_bytes()).err(), Some(error), "{text}");
        }
    }
}
