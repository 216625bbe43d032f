//! The stored form of everything encrypted, and the one place that calls the cipher.
//!
//! ```text
//! record = format:u8 (1)  nonce:[u8; 12]  ciphertext  tag:[u8; 16]
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D) by aws-lc-rs, which draws the nonce itself. A key may seal 2^32
//! records.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use devbox_secrets_proto::secret::SecretBytes;
use thiserror::Error;
use zeroize::Zeroize;

/// Length of an AES-256 key, in bytes.
pub(crate) const KEY_LEN: usize = 32;

const FORMAT: u8 = 1;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = 1 + NONCE_LEN;

/// Why something could not be encrypted, decrypted or drawn at random. Never repeats the data.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum CryptoError {
    /// The system has no random numbers.
    #[error("random numbers are unavailable")]
    Random,
    /// The cipher refused to seal.
    #[error("a record could not be encrypted")]
    Seal,
    /// The record has a format that this program does not know.
    #[error("a stored record has an unknown format: it is damaged, or was written by a newer version")]
    Format,
    /// The record was written under another key or for another place, or was altered.
    #[error(
        "a stored record does not open: it was altered, moved, or written under another key; \
         restore the state directory from a backup"
    )]
    Open,
}

/// Fills `out` from the system's random numbers.
pub(crate) fn fill_random(out: &mut [u8]) -> Result<(), CryptoError> {
    aws_lc_rs::rand::fill(out).map_err(|_| CryptoError::Random)
}

/// Length of the plaintext in a stored record, in bytes.
pub(crate) fn plaintext_len(record: &[u8]) -> usize {
    record.len().saturating_sub(HEADER_LEN + TAG_LEN)
}

/// Length of the stored record of a plaintext of `len` bytes.
pub(crate) fn sealed_len(len: usize) -> usize {
    HEADER_LEN + len + TAG_LEN
}

/// One AES-256-GCM key. Its key schedule lives in memory that aws-lc wipes when it is freed.
pub(crate) struct CipherKey(RandomizedNonceKey);

impl CipherKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, key).expect("AES-256 takes any key of 32 bytes"))
    }

    /// Seals a copy of `plaintext`; the copy is encrypted where it stands.
    pub(crate) fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut record = Vec::with_capacity(HEADER_LEN + plaintext.len() + TAG_LEN);
        record.push(FORMAT);
        record.resize(HEADER_LEN, 0);
        record.extend_from_slice(plaintext);
        let (nonce, tag) = self
            .0
            .seal_in_place_separate_tag(Aad::from(aad), &mut record[HEADER_LEN..])
            .map_err(|_| CryptoError::Seal)?;
        record[1..HEADER_LEN].copy_from_slice(nonce.as_ref());
        record.extend_from_slice(tag.as_ref());
        Ok(record)
    }

    /// Opens `record` in its own buffer, which becomes the plaintext's.
    pub(crate) fn open(&self, aad: &[u8], mut record: Vec<u8>) -> Result<SecretBytes, CryptoError> {
        let plaintext = self.open_in_place(aad, &mut record)?;
        let len = plaintext.len();
        record.copy_within(plaintext, 0);
        record[len..].zeroize();
        record.truncate(len);
        Ok(SecretBytes::new(record))
    }

    /// Opens `record` in place and returns the plaintext's range. The buffer is the caller's to
    /// wipe.
    pub(crate) fn open_in_place(&self, aad: &[u8], record: &mut [u8]) -> Result<Range<usize>, CryptoError> {
        let (header, sealed) = record.split_at_mut_checked(HEADER_LEN).ok_or(CryptoError::Format)?;
        if header[0] != FORMAT {
            return Err(CryptoError::Format);
        }
        let nonce = Nonce::try_assume_unique_for_key(&header[1..]).map_err(|_| CryptoError::Format)?;
        let opened = self.0.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| CryptoError::Open)?;
        Ok(HEADER_LEN..HEADER_LEN + opened.len())
    }
}

impl fmt::Debug for CipherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CipherKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> CipherKey {
        CipherKey::new(&[byte; KEY_LEN])
    }

    #[test]
    fn a_record_opens_under_its_key_and_place_only() {
        let record = key(1).seal(b"place", b"value").unwrap();
        assert_eq!(key(1).open(b"place", record.clone()).unwrap().expose_secret(), b"value");
        assert_eq!(key(1).open(b"other", record.clone()).err(), Some(CryptoError::Open));
        assert_eq!(key(2).open(b"place", record).err(), Some(CryptoError::Open));
    }

    #[test]
    fn no_two_records_share_a_nonce_or_show_the_plaintext() {
        let (first, second) =
            (key(1).seal(b"", b"plaintext").unwrap(), key(1).seal(b"", b"plaintext").unwrap());
        assert_ne!(first[1..HEADER_LEN], second[1..HEADER_LEN]);
        assert!(!first.windows(9).any(|window| window == b"plaintext"));
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let record = key(1).seal(b"place", b"value").unwrap();
        for at in 0..record.len() {
            let mut altered = record.clone();
            altered[at] ^= 1;
            assert!(key(1).open(b"place", altered).is_err(), "byte {at}");
            assert!(key(1).open(b"place", record[..at].to_vec()).is_err(), "length {at}");
        }
    }

    #[test]
    fn the_length_of_a_plaintext_is_known_without_opening_it() {
        for len in [0, 1, 131_072] {
            assert_eq!(plaintext_len(&key(1).seal(b"", &vec![7; len]).unwrap()), len);
        }
    }
}
