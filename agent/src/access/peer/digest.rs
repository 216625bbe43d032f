//! SHA-256 of executables (FIPS 180-4), cached until a file changes.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use crate::sys::Stamp;

const LEN: usize = 32;
const CHUNK: usize = 64 * 1024;
const REMEMBERED: usize = 64;
/// Seconds after a change in which a file is not cached: it could change again within the
/// resolution of its timestamps.
const SETTLED_AFTER: i64 = 2;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; LEN]);

/// Why a text is not a digest.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a SHA-256 is 64 hexadecimal digits: take what sha256sum prints")]
pub struct InvalidDigest;

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| InvalidDigest)?;
        bytes.try_into().map(Self).map_err(|_| InvalidDigest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Digest {
    /// The digest of all that is left to read of `file`.
    ///
    /// # Errors
    /// Reading fails.
    pub fn of(file: &mut File) -> io::Result<Self> {
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => context.update(&chunk[..read]),
            }
        }
        let mut digest = [0; LEN];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Self(digest))
    }
}

#[derive(Debug, Default)]
pub(super) struct Remembered(VecDeque<(Stamp, Digest)>);

impl Remembered {
    pub(super) fn find(&self, stamp: Stamp) -> Option<Digest> {
        self.0.iter().find(|(known, _)| *known == stamp).map(|(_, digest)| *digest)
    }

    /// `now` is in seconds since the epoch.
    pub(super) fn keep(&mut self, stamp: Stamp, digest: Digest, now: i64) {
        if now.saturating_sub(stamp.changed.0) > SETTLED_AFTER {
            self.0.truncate(REMEMBERED - 1);
            self.0.push_front((stamp, digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn stamp(inode: u64, changed: i64) -> Stamp {
        Stamp { device: 1, inode, size: 1, modified: (0, 0), changed: (changed, 0) }
    }

    #[test]
    fn a_digest_is_read_and_printed_as_sha256sum_does() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(Digest::of(&mut file).unwrap().to_string(), EMPTY);
        assert_eq!(EMPTY.to_uppercase().parse::<Digest>().unwrap().to_string(), EMPTY);
    }

    #[test]
    fn other_texts_are_not_digests() {
        for text in
            ["", "e3", &EMPTY[1..], &format!("{EMPTY}0"), &EMPTY.replace('e', "g"), &EMPTY.replace('e', "é")]
        {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }

    #[test]
    fn only_the_same_version_of_a_file_is_remembered_and_only_once_it_has_settled() {
        let (mut remembered, digest) = (Remembered::default(), EMPTY.parse().unwrap());
        remembered.keep(stamp(1, 100), digest, 101);
        assert_eq!(remembered.find(stamp(1, 100)), None);
        remembered.keep(stamp(1, 100), digest, 110);
        assert_eq!(remembered.find(stamp(1, 100)), Some(digest));
        assert_eq!(remembered.find(stamp(1, 101)), None);
        assert_eq!(remembered.find(stamp(2, 100)), None);
    }

    #[test]
    fn the_number_of_remembered_files_is_bounded() {
        let (mut remembered, digest) = (Remembered::default(), EMPTY.parse().unwrap());
        for inode in 0..1_000 {
            remembered.keep(stamp(inode, 0), digest, 10);
        }
        assert_eq!(remembered.0.len(), REMEMBERED);
        assert_eq!(remembered.find(stamp(999, 0)), Some(digest));
    }
}
