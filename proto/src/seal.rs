//! HPKE (RFC 9180, base mode) between the control plane and one daemon: X-Wing (ML-KEM-768 + X25519), HKDF-SHA256,
//! ChaCha20-Poly1305.
//!
//! A bundle is one HPKE context, so one KEM operation however many values; each value is one message in it. The context
//! is bound to devbox, revision and number of values ([`Context`]), each message to its [`Label`]: a value moved to
//! another devbox, name, version or place does not open.

use std::fmt;

use hpke::aead::{AeadCtxR, AeadCtxS, AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use thiserror::Error;

/// Length of an X-Wing public key, in bytes.
pub const PUBLIC_KEY_LEN: usize = 1216;
/// Length of an X-Wing encapsulated key, in bytes.
pub const ENCAPPED_KEY_LEN: usize = 1120;
/// Length of an authentication tag, in bytes.
pub const TAG_LEN: usize = 16;

/// Why sealing or opening failed.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum SealError {
    /// Not an X-Wing public key.
    #[error("not an X-Wing public key")]
    PublicKey,
    /// Not an encapsulated key for this private key.
    #[error("not an X-Wing encapsulated key")]
    EncappedKey,
    /// The buffers do not fit the sealed value.
    #[error("a sealed value is its plaintext and a tag of 16 bytes")]
    Length,
    /// The value was sealed for another devbox, key, revision, label or place, or was altered.
    #[error("a sealed value does not open: it was altered, or sealed for another devbox, key or place")]
    Open,
    /// The context cannot seal any more messages.
    #[error("a value could not be sealed")]
    Seal,
}

/// The facts that a whole bundle is bound to (HPKE `info`).
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The receiving devbox.
    pub devbox_id: &'a str,
    /// The bundle's revision.
    pub revision: u64,
    /// The number of values in the bundle.
    pub count: u32,
}

/// The facts that one value is bound to (additional data of its message).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// Environment name in the devbox.
    pub env: &'a str,
    /// The secret's name in its account.
    pub secret: &'a str,
    /// The secret's id.
    pub secret_id: &'a str,
    /// The secret's version: 1 at creation, one more at each update.
    pub version: u64,
}

impl Context<'_> {
    fn info(&self) -> Vec<u8> {
        let mut info = b"devbox-secrets bundle 1".to_vec();
        push_field(&mut info, self.devbox_id.as_bytes());
        info.extend_from_slice(&self.revision.to_be_bytes());
        info.extend_from_slice(&self.count.to_be_bytes());
        info
    }
}

impl Label<'_> {
    fn additional_data(&self) -> Vec<u8> {
        let mut aad = Vec::new();
        for field in [self.env, self.secret, self.secret_id] {
            push_field(&mut aad, field.as_bytes());
        }
        aad.extend_from_slice(&self.version.to_be_bytes());
        aad
    }
}

/// Length-prefixed, so that no two sequences of fields share an encoding.
fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u64).to_be_bytes());
    out.extend_from_slice(field);
}

/// The sender's side of one bundle.
pub struct Sealer(AeadCtxS<ChaCha20Poly1305, HkdfSha256, XWing>);

impl Sealer {
    /// Encapsulates a fresh key to `public_key`; the encapsulated key goes with the bundle.
    ///
    /// # Errors
    /// [`SealError::PublicKey`].
    pub fn new(public_key: &[u8], context: Context<'_>) -> Result<(Self, Vec<u8>), SealError> {
        let public_key =
            <XWing as Kem>::PublicKey::from_bytes(public_key).map_err(|_| SealError::PublicKey)?;
        let (encapped, sender) =
            setup_sender(&OpModeS::Base, &public_key, &context.info()).map_err(|_| SealError::PublicKey)?;
        Ok((Self(sender), encapped.to_bytes().to_vec()))
    }

    /// Seals `value` in place and returns its tag. Values open only in the order in which they were sealed.
    ///
    /// # Errors
    /// [`SealError::Seal`].
    pub fn seal(&mut self, label: Label<'_>, value: &mut [u8]) -> Result<[u8; TAG_LEN], SealError> {
        let tag = self
            .0
            .seal_inout_detached(InOutBuf::from(value), &label.additional_data())
            .map_err(|_| SealError::Seal)?;
        Ok(tag.to_bytes().into())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The receiver's ephemeral key pair. The private key is wiped on drop.
pub struct BundleKey {
    private: <XWing as Kem>::PrivateKey,
    public: Vec<u8>,
}

impl BundleKey {
    /// A fresh key pair from the kernel's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let (private, public) = XWing::gen_keypair();
        Self { private, public: public.to_bytes().to_vec() }
    }

    /// The public key, [`PUBLIC_KEY_LEN`] bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// Opens a bundle's context.
    ///
    /// # Errors
    /// [`SealError::EncappedKey`].
    pub fn opener(&self, encapped_key: &[u8], context: Context<'_>) -> Result<Opener, SealError> {
        let encapped =
            <XWing as Kem>::EncappedKey::from_bytes(encapped_key).map_err(|_| SealError::EncappedKey)?;
        setup_receiver(&OpModeR::Base, &self.private, &encapped, &context.info())
            .map(Opener)
            .map_err(|_| SealError::EncappedKey)
    }
}

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleKey").finish_non_exhaustive()
    }
}

/// The receiver's side of one bundle.
pub struct Opener(AeadCtxR<ChaCha20Poly1305, HkdfSha256, XWing>);

impl Opener {
    /// Opens `sealed` (ciphertext and tag) into `out`, which is [`TAG_LEN`] bytes shorter, without another copy.
    ///
    /// # Errors
    /// [`SealError::Length`]; [`SealError::Open`], after which `out` must not be read.
    pub fn open_into(&mut self, label: Label<'_>, sealed: &[u8], out: &mut [u8]) -> Result<(), SealError> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(SealError::Length)?;
        let buffer = InOutBuf::new(ciphertext, out).map_err(|_| SealError::Length)?;
        let tag = AeadTag::from_bytes(tag).map_err(|_| SealError::Length)?;
        self.0.open_inout_detached(buffer, &label.additional_data(), &tag).map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'_> = Context { devbox_id: "dbx_1", revision: 7, count: 2 };
    const FIRST: Label<'_> = Label { env: "A", secret: "ALPHA", secret_id: "sec_1", version: 3 };
    const SECOND: Label<'_> = Label { env: "B", secret: "BETA", secret_id: "sec_2", version: 1 };

    fn sealed(key: &BundleKey, context: Context<'_>) -> (Vec<u8>, [Vec<u8>; 2]) {
        let (mut sealer, encapped) = Sealer::new(key.public_key(), context).unwrap();
        let mut seal = |label, value: &[u8]| {
            let mut sealed = value.to_vec();
            let tag = sealer.seal(label, &mut sealed).unwrap();
            sealed.extend_from_slice(&tag);
            sealed
        };
        let values = [seal(FIRST, b"first"), seal(SECOND, b"second")];
        (encapped, values)
    }

    #[test]
    fn lengths_are_as_documented() {
        let key = BundleKey::generate();
        let (encapped, values) = sealed(&key, CONTEXT);
        assert_eq!(key.public_key().len(), PUBLIC_KEY_LEN);
        assert_eq!(encapped.len(), ENCAPPED_KEY_LEN);
        assert_eq!(values[0].len(), b"first".len() + TAG_LEN);
    }

    #[test]
    fn values_open_in_their_order() {
        let key = BundleKey::generate();
        let (encapped, values) = sealed(&key, CONTEXT);
        let mut opener = key.opener(&encapped, CONTEXT).unwrap();
        let (mut first, mut second) = ([0; 5], [0; 6]);
        opener.open_into(FIRST, &values[0], &mut first).unwrap();
        opener.open_into(SECOND, &values[1], &mut second).unwrap();
        assert_eq!((&first, &second), (b"first", b"second"));
    }

    #[test]
    fn a_value_opens_only_where_it_was_sealed_for() {
        let key = BundleKey::generate();
        let (encapped, values) = sealed(&key, CONTEXT);
        let open = |key: &BundleKey, context, label, sealed: &[u8]| {
            key.opener(&encapped, context).unwrap().open_into(label, sealed, &mut [0; 5])
        };
        assert_eq!(open(&key, CONTEXT, FIRST, &values[0]), Ok(()));

        let contexts = [
            Context { devbox_id: "dbx_2", ..CONTEXT },
            Context { revision: 8, ..CONTEXT },
            Context { count: 1, ..CONTEXT },
        ];
        for context in contexts {
            assert_eq!(open(&key, context, FIRST, &values[0]), Err(SealError::Open), "{context:?}");
        }
        let labels = [
            Label { env: "B", ..FIRST },
            Label { secret: "BETA", ..FIRST },
            Label { secret_id: "sec_2", ..FIRST },
            Label { version: 4, ..FIRST },
        ];
        for label in labels {
            assert_eq!(open(&key, CONTEXT, label, &values[0]), Err(SealError::Open), "{label:?}");
        }
        assert_eq!(open(&BundleKey::generate(), CONTEXT, FIRST, &values[0]), Err(SealError::Open));
        let mut altered = values[0].clone();
        altered[0] ^= 1;
        assert_eq!(open(&key, CONTEXT, FIRST, &altered), Err(SealError::Open));
    }

    #[test]
    fn values_out_of_order_do_not_open() {
        let key = BundleKey::generate();
        let (encapped, values) = sealed(&key, CONTEXT);
        let mut opener = key.opener(&encapped, CONTEXT).unwrap();
        assert_eq!(opener.open_into(SECOND, &values[1], &mut [0; 6]), Err(SealError::Open));
    }

    #[test]
    fn nonsense_keys_and_lengths_are_errors() {
        assert_eq!(Sealer::new(b"short", CONTEXT).err(), Some(SealError::PublicKey));
        let key = BundleKey::generate();
        assert_eq!(key.opener(b"short", CONTEXT).err(), Some(SealError::EncappedKey));
        let (encapped, values) = sealed(&key, CONTEXT);
        let mut opener = key.opener(&encapped, CONTEXT).unwrap();
        assert_eq!(opener.open_into(FIRST, &values[0], &mut [0; 4]), Err(SealError::Length));
        assert_eq!(opener.open_into(FIRST, b"tiny", &mut []), Err(SealError::Length));
    }
}
