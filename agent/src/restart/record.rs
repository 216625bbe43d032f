//! The notes of images: the description of a generation's pages, and an identity. Numbers are little-endian.
//!
//! ```text
//! secrets  = devbox:bytes  revision:u64  count:u32  variable*count
//! variable = env:bytes  secret:bytes  secret id:bytes  version:u64  length of its string:u32
//! identity = home:bytes    certificates:bytes  key:bytes  CA:bytes  tried:bytes    (PEM, PKCS #8 DER, PEM, digests of join tokens)
//! bytes    = length:u32  [u8; length]
//! ```

use devbox_secrets_proto::seal::Label;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::{Identity, Material, TriedTokens};
use crate::memory::Generation;

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("its notes are not of this version")]
pub(super) struct InvalidRecord;

#[derive(Debug)]
pub(super) struct SecretsRecord<'a> {
    pub(super) devbox: &'a str,
    pub(super) revision: u64,
    /// Each variable, and the length of its string in the pages.
    pub(super) variables: Vec<(Label<'a>, usize)>,
}

/// Describes `generation`, whose pages hold its strings.
pub(super) fn secrets(devbox: &str, generation: &Generation) -> Result<Zeroizing<Vec<u8>>, InvalidRecord> {
    let mut notes = Writer::default();
    notes.bytes(devbox.as_bytes())?;
    notes.u64(generation.revision());
    notes.u32(generation.count())?;
    for (at, variable) in generation.variables().enumerate() {
        for text in [variable.name, variable.secret, variable.secret_id] {
            notes.bytes(text.as_bytes())?;
        }
        notes.u64(variable.version);
        notes.u32(generation.string(at).len())?;
    }
    Ok(notes.0)
}

impl<'a> SecretsRecord<'a> {
    pub(super) fn read(notes: &'a [u8]) -> Result<Self, InvalidRecord> {
        let mut notes = Reader(notes);
        let (devbox, revision, count) = (notes.text()?, notes.u64()?, notes.u32()?);
        let mut variables = Vec::new();
        for _ in 0..count {
            let label = Label {
                env: notes.text()?,
                secret: notes.text()?,
                secret_id: notes.text()?,
                version: notes.u64()?,
            };
            variables.push((label, notes.u32()?));
        }
        notes.end()?;
        Ok(Self { devbox, revision, variables })
    }
}

pub(super) fn identity(home: &str, identity: &Identity) -> Result<Zeroizing<Vec<u8>>, InvalidRecord> {
    let Material { chain, key, ca } = identity.material();
    let mut notes = Writer::default();
    for part in [home.as_bytes(), chain, key.expose_secret(), ca, identity.tried_tokens().as_bytes()] {
        notes.bytes(part)?;
    }
    Ok(notes.0)
}

pub(super) struct IdentityRecord<'a> {
    pub(super) home: &'a str,
    pub(super) chain: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) ca: &'a [u8],
    pub(super) tried: TriedTokens,
}

impl<'a> IdentityRecord<'a> {
    pub(super) fn read(notes: &'a [u8]) -> Result<Self, InvalidRecord> {
        let mut notes = Reader(notes);
        let (home, chain, key, ca) = (notes.text()?, notes.bytes()?, notes.bytes()?, notes.bytes()?);
        // The notes of an earlier version, which may be the predecessor, end here.
        let tried = if notes.0.is_empty() { &[] } else { notes.bytes()? };
        notes.end()?;
        Ok(Self { home, chain, key, ca, tried: TriedTokens::from_bytes(tried).ok_or(InvalidRecord)? })
    }
}

#[derive(Default)]
struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u32(&mut self, number: usize) -> Result<(), InvalidRecord> {
        let number = u32::try_from(number).map_err(|_| InvalidRecord)?;
        self.0.extend_from_slice(&number.to_le_bytes());
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), InvalidRecord> {
        self.u32(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidRecord> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(InvalidRecord)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, InvalidRecord> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<usize, InvalidRecord> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn bytes(&mut self) -> Result<&'a [u8], InvalidRecord> {
        let len = self.u32()?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(InvalidRecord)?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a str, InvalidRecord> {
        std::str::from_utf8(self.bytes()?).map_err(|_| InvalidRecord)
    }

    fn end(&self) -> Result<(), InvalidRecord> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidRecord) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::test_support::SealedBundle;
    use crate::sys::test_support::memories;

    #[test]
    fn a_generation_is_described_completely_and_without_a_value() {
        let sealed = SealedBundle::new(7, &[("A", b"hunter2"), ("B", b"")]);
        let generation = sealed.open(&memories()[0]).unwrap();
        let notes = secrets("dbx_1", &generation).unwrap();
        assert!(!notes.windows(7).any(|window| window == b"hunter2"));
        let record = SecretsRecord::read(&notes).unwrap();
        assert_eq!((record.devbox, record.revision), ("dbx_1", 7));
        let first = Label { env: "A", secret: "A", secret_id: "sec_A", version: 1 };
        assert_eq!(record.variables[0], (first, "A=hunter2\0".len()));
        assert_eq!(record.variables.len(), 2);
        for len in 0..notes.len() {
            assert!(SecretsRecord::read(&notes[..len]).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_make_the_readers_panic(notes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = SecretsRecord::read(&notes);
            let _ = IdentityRecord::read(&notes);
        }
    }
}
