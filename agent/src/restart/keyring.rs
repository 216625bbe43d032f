//! Keys of images, in the kernel keyring of this process's user (user-keyring(7), keyctl(2)).
//!
//! A key outlives its process by [`KEY_LIFE`] at most, is in no file system, is not swapped, and is lost at a reboot. Other users
//! cannot read it: reading needs possession of the keyring, which even root lacks unless it becomes this user.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use thiserror::Error;
use zeroize::Zeroizing;

use super::image::ImageId;
use crate::sys::BootTime;

/// Length of a key, in bytes.
const KEY_LEN: usize = 32;
/// Length of a key and its image's expiry in milliseconds of [`BootTime`], little-endian.
const PAYLOAD_LEN: usize = KEY_LEN + size_of::<u64>();

/// Time after which the kernel drops a key that is not renewed: longer than a restart or an upgrade takes. A daemon cannot tell a
/// stop from either, so after a stop the keys expire by this.
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(600);

/// Why a key is unavailable.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum KeyringError {
    /// The keyring is unavailable.
    #[error(
        "the kernel keyring of this user is unavailable: allow add_key and keyctl in the sandbox's system call filter"
    )]
    Unavailable(#[source] KeyError),
    /// The quota is exhausted.
    #[error("the kernel keyring is full: raise kernel.keys.maxkeys and maxbytes")]
    Full(#[source] KeyError),
    /// The key does not exist.
    #[error("the kernel keyring has no key for it: it is of another boot, has expired, or was revoked")]
    NoKey,
    /// The kernel has no random numbers, or the key is refused.
    #[error("no key can be made")]
    Random,
}

/// The keyring of this process's user.
#[derive(Debug)]
pub struct Keyring {
    users: KeyRing,
    /// The process's own keyring, destroyed with it.
    own: KeyRing,
}

/// The key of one image. On the heap, so that moving it leaves no copies.
pub(crate) struct ImageKey {
    bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
}

impl Keyring {
    /// Opens it. The kernel creates it if necessary.
    ///
    /// # Errors
    /// [`KeyringError::Unavailable`].
    pub fn open() -> Result<Self, KeyringError> {
        let open = || {
            // A link from its own keyring makes this process a *possessor* of the user's, which the keys' permissions require.
            let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
            own.link_keyring_id(KeyRingIdentifier::User)?;
            Ok(Self { users: KeyRing::from_special_id(KeyRingIdentifier::User, true)?, own })
        };
        open().map_err(KeyringError::Unavailable)
    }

    /// Stores `key`, or renews it. It expires after [`KEY_LIFE`], and no later than `until`.
    ///
    /// # Errors
    /// [`KeyringError::Full`].
    pub(crate) fn put(&self, id: &ImageId, key: &ImageKey, until: BootTime) -> Result<(), KeyringError> {
        let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
        payload[..KEY_LEN].copy_from_slice(&**key.bytes);
        payload[KEY_LEN..].copy_from_slice(&until.as_millis().to_le_bytes());
        self.replace(&description(id), &*payload, timeout(until)).map_err(KeyringError::Full)
    }

    /// A new key has no expiry, and an update removes it. So the key is made in the process's own keyring, which is destroyed with
    /// the process, and replaces the one before only once it has an expiry.
    fn replace(&self, description: &str, payload: &[u8], timeout: usize) -> Result<(), KeyError> {
        let key = self.own.add_key(description, payload)?;
        let linked = key.set_timeout(timeout).and_then(|()| self.users.link_key(key));
        let unlinked = self.own.unlink_key(key);
        linked.and(unlinked)
    }

    /// The key of an image, and the image's expiry.
    ///
    /// # Errors
    /// [`KeyringError::NoKey`].
    pub(crate) fn find(&self, id: &ImageId) -> Result<(ImageKey, BootTime), KeyringError> {
        let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
        let read = self.users.search(&description(id)).and_then(|key| key.read(&mut *payload));
        if read != Ok(PAYLOAD_LEN) {
            return Err(KeyringError::NoKey);
        }
        let (key, until) = payload.split_first_chunk::<KEY_LEN>().ok_or(KeyringError::NoKey)?;
        let until = until.try_into().map(u64::from_le_bytes).map_err(|_| KeyringError::NoKey)?;
        let mut found = ImageKey::blank();
        found.bytes.copy_from_slice(key);
        Ok((found, BootTime::from_millis(until)))
    }

    pub(crate) fn forget(&self, id: &ImageId) {
        if let Ok(key) = self.users.search(&description(id)) {
            // Revoked first: that takes effect at once, also for a process that found the key
            // already.
            let _ = key.revoke();
            // Unlinked as well, so that it does not count against the user's quota until the kernel
            // collects it.
            let _ = self.users.unlink_key(key);
        }
    }
}

impl ImageKey {
    /// A random key.
    ///
    /// # Errors
    /// [`KeyringError::Random`].
    pub(crate) fn generate() -> Result<Self, KeyringError> {
        let mut fresh = Self::blank();
        aws_lc_rs::rand::fill(&mut **fresh.bytes).map_err(|_| KeyringError::Random)?;
        Ok(fresh)
    }

    /// Zeros, to fill in place.
    fn blank() -> Self {
        Self { bytes: Box::default() }
    }

    pub(super) fn cipher(&self) -> Result<LessSafeKey, KeyringError> {
        UnboundKey::new(&AES_256_GCM, &**self.bytes).map(LessSafeKey::new).map_err(|_| KeyringError::Random)
    }
}

impl std::fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

fn description(id: &ImageId) -> String {
    format!("devbox-secretsd:{id}")
}

/// In seconds, at least 1, because 0 means no timeout to keyctl(2).
fn timeout(until: BootTime) -> usize {
    let left = until.since(BootTime::now()).min(KEY_LIFE);
    usize::try_from(left.as_secs().max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devbox_secrets_tests::needs::skipped;

    fn keyring() -> Option<Keyring> {
        Keyring::open().map_err(|error| skipped(&format!("a keyring: {error}"))).ok()
    }

    fn in_a_minute() -> BootTime {
        BootTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_key_is_found_with_its_expiry_until_it_is_removed() {
        let Some(keyring) = keyring() else { return };
        let (id, key) = (ImageId::generate().unwrap(), ImageKey::generate().unwrap());
        assert_eq!(keyring.find(&id).err(), Some(KeyringError::NoKey));
        keyring.put(&id, &key, in_a_minute()).unwrap();
        let later = in_a_minute() + Duration::from_secs(60);
        keyring.put(&id, &key, later).unwrap();
        let (found, until) = keyring.find(&id).unwrap();
        assert_eq!((**found.bytes, until.as_millis()), (**key.bytes, later.as_millis()));
        keyring.forget(&id);
        assert_eq!(keyring.find(&id).err(), Some(KeyringError::NoKey));
    }

    #[test]
    fn a_process_killed_before_a_key_has_its_expiry_leaves_no_key() {
        let Some(keyring) = keyring() else { return };
        let id = ImageId::generate().unwrap();
        let key = keyring.own.add_key(&description(&id), b"killed here").unwrap();
        assert_eq!(keyring.find(&id).err(), Some(KeyringError::NoKey), "a successor would find it for ever");
        keyring.own.unlink_key(key).unwrap();
    }

    /// The key's timeout, as proc_keys(5) shows it: `perm` for never.
    fn expiry(id: &ImageId) -> String {
        let keys = std::fs::read_to_string("/proc/keys").unwrap();
        let line = keys.lines().find(|line| line.contains(&description(id))).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    }

    #[test]
    fn every_key_in_the_kernel_has_a_timeout() {
        let Some(keyring) = keyring() else { return };
        let (id, key) = (ImageId::generate().unwrap(), ImageKey::generate().unwrap());
        for _ in 0..2 {
            keyring.put(&id, &key, in_a_minute()).unwrap();
            let expiry = expiry(&id);
            assert!(expiry.ends_with('s') || expiry == "1m", "{expiry}");
        }
        keyring.forget(&id);
    }

    #[test]
    fn a_timeout_is_never_zero_which_would_mean_none() {
        assert_eq!(timeout(BootTime::now()), 1);
        assert!((55..=60).contains(&timeout(in_a_minute())));
        assert_eq!(timeout(BootTime::now() + Duration::MAX), 600);
    }

    #[test]
    fn debug_output_has_no_key() {
        assert_eq!(format!("{:?}", ImageKey::generate().unwrap()), "[redacted]");
    }
}
