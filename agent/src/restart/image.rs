//! An image: state that is encrypted under a key of its own.
//!
//! ```text
//! image  = header  ciphertext of pages  tag:[u8; 16]  ciphertext of notes  tag:[u8; 16]
//! header = "DSI1"  kind:u8  0 0 0  length of pages:u32  length of notes:u32          (little-endian)
//! ```
//!
//! AES-256-GCM under a key that seals this one image, so its two nonces are 0 and 1. Header and id are authenticated.
//! *Pages* are decrypted straight into locked memory; *notes* are small.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::keyring::{ImageKey, KeyringError};

const MAGIC: &[u8; 4] = b"DSI1";
const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
const ID_LEN: usize = 16;

/// An image's random id: part of its descriptor's name and of its key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ImageId([u8; ID_LEN]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Identity = 1,
    Secrets = 2,
}

/// Why bytes are not an image, or cannot be decrypted.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidImage {
    #[error("it is not an image of this version")]
    Version,
    #[error("it is truncated")]
    Truncated,
    #[error("it is too large")]
    TooLarge,
    #[error("it cannot be decrypted with its key")]
    Open,
    #[error("it cannot be encrypted")]
    Seal,
    #[error(transparent)]
    Key(#[from] KeyringError),
}

#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// Decrypted into locked memory.
    pub pages: &'a [u8],
    pub notes: &'a [u8],
}

impl Parts<'_> {
    #[must_use]
    pub(crate) fn image_len(&self) -> usize {
        HEADER_LEN + self.pages.len() + TAG_LEN + self.notes.len() + TAG_LEN
    }

    /// Encrypts them into `image`, of [`Self::image_len`] bytes, which never contains a plaintext byte.
    ///
    /// # Errors
    /// [`InvalidImage::TooLarge`], [`InvalidImage::Seal`].
    pub(crate) fn seal(
        &self,
        kind: Kind,
        id: &ImageId,
        key: &ImageKey,
        image: &mut [u8],
    ) -> Result<(), InvalidImage> {
        let header = header(kind, self.pages.len(), self.notes.len())?;
        let bound = bound(&header, id);
        let (front, rest) = image.split_at_mut_checked(HEADER_LEN).ok_or(InvalidImage::Truncated)?;
        front.copy_from_slice(&header);
        let pages_end = self.pages.len() + TAG_LEN;
        let (pages, notes) = rest.split_at_mut_checked(pages_end).ok_or(InvalidImage::Truncated)?;
        seal_part(key, 0, &bound, self.pages, pages)?;
        seal_part(key, 1, &bound, self.notes, notes)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    bound: [u8; HEADER_LEN + ID_LEN],
    pages: &'a [u8],
    notes: &'a [u8],
}

impl<'a> Image<'a> {
    /// Reads the header. Bytes behind the image are ignored, because a file of pages is page-rounded.
    ///
    /// # Errors
    /// [`InvalidImage::Version`], [`InvalidImage::Truncated`].
    pub(crate) fn parse(kind: Kind, id: &ImageId, bytes: &'a [u8]) -> Result<Self, InvalidImage> {
        let (found, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(InvalidImage::Truncated)?;
        let pages_len = length(found, 8);
        let notes_len = length(found, 12);
        if *found != header(kind, pages_len, notes_len)? {
            return Err(InvalidImage::Version);
        }
        let (pages, rest) = rest.split_at_checked(pages_len + TAG_LEN).ok_or(InvalidImage::Truncated)?;
        let notes = rest.get(..notes_len + TAG_LEN).ok_or(InvalidImage::Truncated)?;
        Ok(Self { bound: bound(found, id), pages, notes })
    }

    #[must_use]
    pub(crate) fn pages_len(&self) -> usize {
        self.pages.len() - TAG_LEN
    }

    #[must_use]
    pub(crate) fn notes_len(&self) -> usize {
        self.notes.len() - TAG_LEN
    }

    /// Decrypts the pages into `out`, of [`Self::pages_len`] bytes.
    ///
    /// # Errors
    /// [`InvalidImage::Open`], after which `out` must not be read.
    pub(crate) fn open_pages(&self, key: &ImageKey, out: &mut [u8]) -> Result<(), InvalidImage> {
        open_part(key, 0, &self.bound, self.pages, out)
    }

    /// Decrypts the notes into `out`, of [`Self::notes_len`] bytes.
    ///
    /// # Errors
    /// [`InvalidImage::Open`], after which `out` must not be read.
    pub(crate) fn open_notes(&self, key: &ImageKey, out: &mut [u8]) -> Result<(), InvalidImage> {
        open_part(key, 1, &self.bound, self.notes, out)
    }
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("image_len", &self.image_len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("pages_len", &self.pages_len()).finish_non_exhaustive()
    }
}

fn header(kind: Kind, pages_len: usize, notes_len: usize) -> Result<[u8; HEADER_LEN], InvalidImage> {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(MAGIC);
    header[4] = kind as u8;
    for (at, len) in [(8, pages_len), (12, notes_len)] {
        let len = u32::try_from(len).map_err(|_| InvalidImage::TooLarge)?;
        header[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    Ok(header)
}

fn length(header: &[u8; HEADER_LEN], at: usize) -> usize {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
}

fn bound(header: &[u8; HEADER_LEN], id: &ImageId) -> [u8; HEADER_LEN + ID_LEN] {
    let mut bound = [0; HEADER_LEN + ID_LEN];
    bound[..HEADER_LEN].copy_from_slice(header);
    bound[HEADER_LEN..].copy_from_slice(&id.0);
    bound
}

/// A constant nonce for each part is safe, because the key encrypts this image only.
fn nonce(part: u8) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = part;
    Nonce::assume_unique_for_key(nonce)
}

fn seal_part(
    key: &ImageKey,
    part: u8,
    bound: &[u8],
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<(), InvalidImage> {
    let (ciphertext, rest) = out.split_at_mut_checked(plaintext.len()).ok_or(InvalidImage::Truncated)?;
    let tag = rest.get_mut(..TAG_LEN).ok_or(InvalidImage::Truncated)?;
    key.cipher()?
        .seal_out_of_place_scatter(nonce(part), Aad::from(bound), plaintext, ciphertext, &[], tag)
        .map_err(|_| InvalidImage::Seal)
}

fn open_part(
    key: &ImageKey,
    part: u8,
    bound: &[u8],
    sealed: &[u8],
    out: &mut [u8],
) -> Result<(), InvalidImage> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(InvalidImage::Truncated)?;
    key.cipher()?
        .open_separate_gather(nonce(part), Aad::from(bound), ciphertext, tag, out)
        .map_err(|_| InvalidImage::Open)
}

impl ImageId {
    /// A random id.
    ///
    /// # Errors
    /// [`KeyringError::Random`].
    pub(crate) fn generate() -> Result<Self, KeyringError> {
        let mut bytes = [0; ID_LEN];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyringError::Random)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("an image's id is 32 hexadecimal digits")]
pub(crate) struct InvalidImageId;

impl FromStr for ImageId {
    type Err = InvalidImageId;

    fn from_str(text: &str) -> Result<Self, InvalidImageId> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidImageId)?;
        bytes.try_into().map(Self).map_err(|_| InvalidImageId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts<'_> = Parts { pages: b"DB_PASS=hunter2\0", notes: b"revision 7" };

    struct Sealed {
        id: ImageId,
        key: ImageKey,
        image: Vec<u8>,
    }

    fn sealed() -> Sealed {
        let (id, key) = (ImageId::generate().unwrap(), ImageKey::generate().unwrap());
        let mut image = vec![0; PARTS.image_len()];
        PARTS.seal(Kind::Secrets, &id, &key, &mut image).unwrap();
        Sealed { id, key, image }
    }

    fn open(sealed: &Sealed) -> Result<(Vec<u8>, Vec<u8>), InvalidImage> {
        let image = Image::parse(Kind::Secrets, &sealed.id, &sealed.image)?;
        let (mut pages, mut notes) = (vec![0; image.pages_len()], vec![0; image.notes_len()]);
        image.open_pages(&sealed.key, &mut pages)?;
        image.open_notes(&sealed.key, &mut notes)?;
        Ok((pages, notes))
    }

    #[test]
    fn an_image_opens_with_its_key_and_shows_no_plaintext_without() {
        let mut sealed = sealed();
        assert_eq!(open(&sealed), Ok((PARTS.pages.to_vec(), PARTS.notes.to_vec())));
        for plaintext in [&b"hunter2"[..], b"DB_PASS", b"revision"] {
            assert!(!sealed.image.windows(plaintext.len()).any(|window| window == plaintext));
        }
        sealed.image.resize(4096, 0);
        assert!(open(&sealed).is_ok(), "bytes behind it do not matter");
        sealed.key = ImageKey::generate().unwrap();
        assert_eq!(open(&sealed), Err(InvalidImage::Open));
    }

    #[test]
    fn an_image_of_another_id_or_kind_does_not_open() {
        let mut other = sealed();
        other.id = ImageId::generate().unwrap();
        assert_eq!(open(&other), Err(InvalidImage::Open));
        let sealed = sealed();
        let as_identity = Image::parse(Kind::Identity, &sealed.id, &sealed.image);
        assert_eq!(as_identity.err(), Some(InvalidImage::Version));
    }

    #[test]
    fn no_altered_or_missing_byte_goes_unnoticed() {
        let whole = sealed().image.len();
        for at in 0..whole {
            let mut altered = sealed();
            altered.image[at] ^= 1;
            assert!(open(&altered).is_err(), "byte {at}");
            let mut cut = sealed();
            cut.image.truncate(at);
            assert!(open(&cut).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn an_id_is_read_as_it_is_printed_and_no_other_way() {
        let id = ImageId::generate().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        let printed = "00000000000000000000000000000abc";
        assert!(printed.parse::<ImageId>().is_ok());
        for bad in
            ["", "abc", "+0000000000000000000000000000abc", &printed.to_uppercase(), &format!("{printed}0")]
        {
            assert!(bad.parse::<ImageId>().is_err(), "{bad}");
        }
    }
}
