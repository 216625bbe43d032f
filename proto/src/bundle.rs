//! A bundle on the wire: a devbox's sealed values at one revision.
//!
//! All numbers are big-endian. Without the daemon's private key it reveals no value.
//!
//! ```text
//! bundle = "DSB1"  revision:u64  encapsulated key:[u8; 1120]  count:u32  entry*count
//! entry  = env:str8  secret:str8  secret id:str8  version:u64  length:u32  sealed value:[u8; length]
//! str8   = length:u8  UTF-8 text
//! ```
//!
//! Entries are in strictly ascending byte order of `env`; a sealed value is its ciphertext and a 16-byte tag.

use thiserror::Error;

use crate::name::{InvalidVariable, check_name, max_value_len};
use crate::seal::{ENCAPPED_KEY_LEN, Label, TAG_LEN};

const MAGIC: &[u8; 4] = b"DSB1";
const HEADER_LEN: usize = MAGIC.len() + 8 + ENCAPPED_KEY_LEN + 4;

/// Shortest entry, in bytes: it bounds `count` by the length of the message.
const MIN_ENTRY_LEN: usize = 3 + 8 + 4 + TAG_LEN;

/// Why bytes are not a bundle.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidBundle {
    /// It does not start with this format's mark.
    #[error("not a bundle, or of an unknown version")]
    Magic,
    /// It ends in the middle of a field, or claims more entries than it has room for.
    #[error("the bundle is cut short")]
    Truncated,
    /// There are bytes after the last entry.
    #[error("the bundle has bytes after its last entry")]
    Trailing,
    /// A text is not UTF-8.
    #[error("a text in the bundle is not UTF-8")]
    Text,
    /// An environment name is invalid.
    #[error("an environment name in the bundle is invalid: {0}")]
    Name(#[source] InvalidVariable),
    /// A sealed value is shorter than its tag, or longer than fits its name.
    #[error("a sealed value in the bundle has an impossible length")]
    Length,
    /// Environment names are not strictly ascending.
    #[error("the bundle's environment names are not in order")]
    Order,
}

/// One sealed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The names and version that the value is bound to.
    pub label: Label<'a>,
    /// Ciphertext and tag.
    pub sealed: &'a [u8],
}

impl Entry<'_> {
    /// Length of the plaintext, in bytes.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.sealed.len() - TAG_LEN
    }
}

/// A completely checked bundle that borrows from the message.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The revision of the account's secrets and bindings.
    pub revision: u64,
    /// The encapsulated key of the bundle's HPKE context.
    pub encapped_key: &'a [u8],
    /// The sealed values, in strictly ascending order of environment name.
    pub entries: Vec<Entry<'a>>,
}

impl<'a> Bundle<'a> {
    /// Parses a whole message.
    ///
    /// # Errors
    /// [`InvalidBundle`].
    pub fn parse(message: &'a [u8]) -> Result<Self, InvalidBundle> {
        let mut reader = Reader(message);
        if reader.take(MAGIC.len()) != Ok(MAGIC) {
            return Err(InvalidBundle::Magic);
        }
        let revision = reader.u64()?;
        let encapped_key = reader.take(ENCAPPED_KEY_LEN)?;
        let count = reader.u32()? as usize;
        if count > reader.0.len() / MIN_ENTRY_LEN {
            return Err(InvalidBundle::Truncated);
        }
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = reader.entry()?;
            if entries.last().is_some_and(|last| last.label.env >= entry.label.env) {
                return Err(InvalidBundle::Order);
            }
            entries.push(entry);
        }
        if reader.0.is_empty() {
            Ok(Self { revision, encapped_key, entries })
        } else {
            Err(InvalidBundle::Trailing)
        }
    }
}

/// Writes a bundle into one buffer. Values are appended as they are sealed.
#[derive(Debug)]
pub struct BundleWriter(Vec<u8>);

impl BundleWriter {
    /// Starts a bundle of exactly `count` entries. `encapped_key` has [`ENCAPPED_KEY_LEN`] bytes; `capacity` is a guess
    /// of the entries' total length.
    #[must_use]
    pub fn new(revision: u64, encapped_key: &[u8], count: u32, capacity: usize) -> Self {
        debug_assert_eq!(encapped_key.len(), ENCAPPED_KEY_LEN);
        let mut out = Vec::with_capacity(HEADER_LEN + capacity);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&revision.to_be_bytes());
        out.extend_from_slice(encapped_key);
        out.extend_from_slice(&count.to_be_bytes());
        Self(out)
    }

    /// Appends one sealed value. Call in ascending order of `label.env`.
    ///
    /// # Errors
    /// [`InvalidBundle::Length`] if a text has more than 255 bytes or the ciphertext more than 4 GiB.
    pub fn push(
        &mut self,
        label: Label<'_>,
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), InvalidBundle> {
        let sealed_len = u32::try_from(ciphertext.len() + TAG_LEN).map_err(|_| InvalidBundle::Length)?;
        for text in [label.env, label.secret, label.secret_id] {
            self.0.push(u8::try_from(text.len()).map_err(|_| InvalidBundle::Length)?);
            self.0.extend_from_slice(text.as_bytes());
        }
        self.0.extend_from_slice(&label.version.to_be_bytes());
        self.0.extend_from_slice(&sealed_len.to_be_bytes());
        self.0.extend_from_slice(ciphertext);
        self.0.extend_from_slice(tag);
        Ok(())
    }

    /// The whole message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The rest to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], InvalidBundle> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(InvalidBundle::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidBundle> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(InvalidBundle::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, InvalidBundle> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, InvalidBundle> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a str, InvalidBundle> {
        let [len] = self.array()?;
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| InvalidBundle::Text)
    }

    fn entry(&mut self) -> Result<Entry<'a>, InvalidBundle> {
        let label =
            Label { env: self.text()?, secret: self.text()?, secret_id: self.text()?, version: self.u64()? };
        check_name(label.env).map_err(InvalidBundle::Name)?;
        let sealed_len = self.u32()? as usize;
        let allowed = TAG_LEN..=TAG_LEN + max_value_len(label.env);
        if !allowed.contains(&sealed_len) {
            return Err(InvalidBundle::Length);
        }
        Ok(Entry { label, sealed: self.take(sealed_len)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(env: &str) -> Label<'_> {
        Label { env, secret: "SECRET", secret_id: "sec_1", version: 2 }
    }

    fn bundle(envs: &[&str]) -> Vec<u8> {
        let count = u32::try_from(envs.len()).unwrap();
        let mut writer = BundleWriter::new(9, &[7; ENCAPPED_KEY_LEN], count, 0);
        for env in envs {
            writer.push(label(env), b"ciphertext", &[1; TAG_LEN]).unwrap();
        }
        writer.finish()
    }

    #[test]
    fn a_written_bundle_is_read_back() {
        let message = bundle(&["A", "B"]);
        let parsed = Bundle::parse(&message).unwrap();
        assert_eq!((parsed.revision, parsed.encapped_key), (9, &[7; ENCAPPED_KEY_LEN][..]));
        assert_eq!(parsed.entries.len(), 2);
        assert_eq!(parsed.entries[1].label, label("B"));
        assert_eq!(parsed.entries[1].value_len(), b"ciphertext".len());
    }

    #[test]
    fn every_prefix_is_refused_as_cut_short() {
        let message = bundle(&["A", "B"]);
        for len in MAGIC.len()..message.len() {
            assert_eq!(Bundle::parse(&message[..len]).err(), Some(InvalidBundle::Truncated), "{len}");
        }
    }

    #[test]
    fn each_malformation_has_its_error() {
        let error = |message: &[u8]| Bundle::parse(message).err();
        assert_eq!(error(b"DSB2"), Some(InvalidBundle::Magic));
        assert_eq!(error(&bundle(&["B", "A"])), Some(InvalidBundle::Order));
        assert_eq!(error(&bundle(&["A", "A"])), Some(InvalidBundle::Order));
        assert_eq!(error(&bundle(&["A-B"])), Some(InvalidBundle::Name(InvalidVariable::NameCharacters)));
        let mut trailing = bundle(&["A"]);
        trailing.push(0);
        assert_eq!(error(&trailing), Some(InvalidBundle::Trailing));
        let mut huge_count = bundle(&["A"]);
        huge_count[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(error(&huge_count), Some(InvalidBundle::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut message in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = Bundle::parse(&message);
            let start = message.len().min(MAGIC.len());
            message[..start].copy_from_slice(&MAGIC[..start]);
            let _ = Bundle::parse(&message);
        }

        #[test]
        fn one_changed_byte_never_panics(at in 0usize..1300, byte: u8) {
            let mut message = bundle(&["ALPHA", "BETA", "GAMMA"]);
            let len = message.len();
            message[at % len] = byte;
            let _ = Bundle::parse(&message);
        }
    }
}
