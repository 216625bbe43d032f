//! A name for a CA of which only the fingerprint is known.
//!
//! A client lists the CAs that it trusts in its `ClientHello`, by their names (`certificate_authorities`, RFC 8446 section
//! 4.2.4). A join token has a CA's SHA-256 and not its name. So the client gives the name `CN=<the SHA-256, lowercase
//! hexadecimal>`, which the server knows for each of its CAs.

use crate::join_token::FINGERPRINT_LEN;

/// DER (X.690) before the digits: a set (73 bytes) of a sequence (71 bytes) of the type `commonName` (2.5.4.3) and a
/// UTF8String (64 bytes).
const BEFORE_DIGITS: [u8; 11] = [0x31, 0x49, 0x30, 0x47, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x40];

/// Length of a [`ca_name`], in bytes.
pub const CA_NAME_LEN: usize = BEFORE_DIGITS.len() + 2 * FINGERPRINT_LEN;

/// The contents of the `Name`'s sequence (RFC 5280 section 4.1.2.4), DER. `fingerprint`: SHA-256 over the CA's certificate.
#[must_use]
pub fn ca_name(fingerprint: &[u8; FINGERPRINT_LEN]) -> [u8; CA_NAME_LEN] {
    let mut name = [0; CA_NAME_LEN];
    let (start, digits) = name.split_at_mut(BEFORE_DIGITS.len());
    start.copy_from_slice(&BEFORE_DIGITS);
    for (pair, byte) in digits.chunks_exact_mut(2).zip(fingerprint) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    name
}

/// A number below 16 in hexadecimal.
fn digit(number: u8) -> u8 {
    b"0123456789abcdef"[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_in_a_name_is_that_of_what_follows() {
        let name = ca_name(&[0xa5; FINGERPRINT_LEN]);
        assert!(name.ends_with(b"a5a5"));
        for at in [1, 3, 10] {
            assert_eq!(usize::from(name[at]), name.len() - at - 1, "the length at {at}");
        }
    }
}
