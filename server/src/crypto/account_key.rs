//! An account's key, which seals its values, each bound to its account, secret and version, and
//! from which the account's other keys are derived.

use std::ops::Range;

use aws_lc_rs::hmac;
use devbox_secrets_proto::secret::SecretBytes;
use zeroize::Zeroizing;

use super::id::{AccountId, DevboxId, JoinTokenId, SecretId};
use super::sealed::{CipherKey, CryptoError, KEY_LEN};
use super::token::JoinSecret;

/// Where in an account a value is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueLocation<'a> {
    pub(crate) secret: &'a SecretId,
    /// The secret's version: 1 at creation, one more at each update.
    pub(crate) version: u64,
}

/// One account's AES-256-GCM key and the keys derived from it, unwrapped for the time of one
/// operation.
#[derive(Debug)]
pub(crate) struct AccountKey {
    account: AccountId,
    cipher: CipherKey,
    /// While the account is re-keyed: records that are still under its last key open too.
    previous: Option<CipherKey>,
    fingerprints: hmac::Key,
    join_secrets: hmac::Key,
}

impl AccountKey {
    pub(super) fn new(account: AccountId, key: &[u8; KEY_LEN]) -> Self {
        Self {
            account,
            cipher: CipherKey::new(key),
            previous: None,
            fingerprints: derived(key, b"devbox-secrets request fingerprints"),
            join_secrets: derived(key, b"devbox-secrets join secrets"),
        }
    }

    /// As [`AccountKey::new`], for an account that is being re-keyed.
    pub(super) fn following(account: AccountId, key: &[u8; KEY_LEN], previous: &[u8; KEY_LEN]) -> Self {
        Self { previous: Some(CipherKey::new(previous)), ..Self::new(account, key) }
    }

    /// The stored form of what a request asked: `digest` is SHA-256 of all of it.
    pub(crate) fn fingerprint(&self, digest: &[u8; 32]) -> [u8; 32] {
        tag(&self.fingerprints, digest)
    }

    /// The secret part of the devbox's join token. It is derived, not drawn: a retried registration
    /// answers the same token, though only its hash is stored.
    pub(crate) fn join_secret(&self, devbox: &DevboxId) -> JoinSecret {
        JoinSecret::from_bytes(&Zeroizing::new(tag(&self.join_secrets, devbox.as_str().as_bytes())))
    }

    /// The secret part of a later join token of the devbox: another one for each issue.
    pub(crate) fn later_join_secret(&self, devbox: &DevboxId, issue: &JoinTokenId) -> JoinSecret {
        // No id has a space, so no two messages are alike.
        let message = format!("{devbox} {issue}");
        JoinSecret::from_bytes(&Zeroizing::new(tag(&self.join_secrets, message.as_bytes())))
    }

    /// Encrypts `value` for its place. The caller's copy stays as it is.
    pub(crate) fn seal(
        &self,
        location: ValueLocation<'_>,
        value: &SecretBytes,
    ) -> Result<Vec<u8>, CryptoError> {
        self.cipher.seal(&self.additional_data(location), value.expose_secret())
    }

    /// `record` under the account's current key if it is still under the previous one, else `None`.
    ///
    /// # Errors
    /// [`CryptoError::Open`] if it was sealed for another account, secret or version;
    /// [`CryptoError::Seal`].
    pub(crate) fn reseal(
        &self,
        location: ValueLocation<'_>,
        record: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, CryptoError> {
        let data = self.additional_data(location);
        match (self.cipher.open(&data, record.clone()), &self.previous) {
            (Ok(_), _) => Ok(None),
            (Err(CryptoError::Open), Some(previous)) => {
                let value = previous.open(&data, record)?;
                self.cipher.seal(&data, value.expose_secret()).map(Some)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Decrypts `record` in place and returns the value's range. The caller wipes the buffer.
    ///
    /// # Errors
    /// [`CryptoError::Open`] if it was sealed for another account, secret or version.
    pub(crate) fn open_in_place(
        &self,
        location: ValueLocation<'_>,
        record: &mut [u8],
    ) -> Result<Range<usize>, CryptoError> {
        let data = self.additional_data(location);
        let Some(previous) = &self.previous else { return self.cipher.open_in_place(&data, record) };
        let sealed = record.to_vec();
        match self.cipher.open_in_place(&data, record) {
            Err(CryptoError::Open) => {
                record.copy_from_slice(&sealed);
                previous.open_in_place(&data, record)
            }
            opened => opened,
        }
    }

    /// Length-prefixed, so that no two places share an encoding.
    fn additional_data(&self, location: ValueLocation<'_>) -> Vec<u8> {
        let mut data = Vec::new();
        for field in [self.account.as_str(), location.secret.as_str()] {
            data.extend_from_slice(&(field.len() as u64).to_be_bytes());
            data.extend_from_slice(field.as_bytes());
        }
        data.extend_from_slice(&location.version.to_be_bytes());
        data
    }
}

/// A key for another purpose, from which `key` cannot be found.
fn derived(key: &[u8; KEY_LEN], purpose: &[u8]) -> hmac::Key {
    let derived = Zeroizing::new(tag(&hmac::Key::new(hmac::HMAC_SHA256, key), purpose));
    hmac::Key::new(hmac::HMAC_SHA256, &*derived)
}

fn tag(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(key, message).as_ref());
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AccountKey {
        pub(crate) fn open(
            &self,
            location: ValueLocation<'_>,
            mut record: Vec<u8>,
        ) -> Result<SecretBytes, CryptoError> {
            let value = self.open_in_place(location, &mut record)?;
            Ok(SecretBytes::new(record[value].to_vec()))
        }
    }

    fn key(account: &str) -> AccountKey {
        AccountKey::new(AccountId::new(account), &[3; 32])
    }

    #[test]
    fn a_value_moved_to_another_account_secret_or_version_does_not_open() {
        let first = SecretId::new("sec_1");
        let second = SecretId::new("sec_2");
        let location = ValueLocation { secret: &first, version: 1 };
        let record = key("acc_1").seal(location, &SecretBytes::new(b"value".to_vec())).unwrap();
        let open = |account, location| key(account).open(location, record.clone());

        assert_eq!(open("acc_1", location).unwrap().expose_secret(), b"value");
        assert_eq!(open("acc_2", location).err(), Some(CryptoError::Open));
        assert_eq!(
            open("acc_1", ValueLocation { secret: &second, ..location }).err(),
            Some(CryptoError::Open)
        );
        assert_eq!(open("acc_1", ValueLocation { version: 2, ..location }).err(), Some(CryptoError::Open));
    }

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        let short = SecretId::new("b");
        let long = SecretId::new("ab");
        let record = key("aa").seal(ValueLocation { secret: &short, version: 1 }, &SecretBytes::new(vec![1]));
        let opened = key("a").open(ValueLocation { secret: &long, version: 1 }, record.unwrap());
        assert_eq!(opened.err(), Some(CryptoError::Open));
    }

    #[test]
    fn fingerprints_and_join_secrets_depend_on_the_key_and_on_what_they_are_of() {
        let one = key("acc_1");
        let other = AccountKey::new(AccountId::new("acc_1"), &[4; 32]);
        assert_eq!(one.fingerprint(&[1; 32]), one.fingerprint(&[1; 32]));
        assert_ne!(one.fingerprint(&[1; 32]), one.fingerprint(&[2; 32]));
        assert_ne!(one.fingerprint(&[1; 32]), other.fingerprint(&[1; 32]));
        let first = DevboxId::new("dbx_1");
        let second = DevboxId::new("dbx_2");
        assert_eq!(one.join_secret(&first).hash(), one.join_secret(&first).hash());
        assert_ne!(one.join_secret(&first).hash(), one.join_secret(&second).hash());
        assert_ne!(one.join_secret(&first).hash(), other.join_secret(&first).hash());
        let issue = JoinTokenId::generate().unwrap();
        let later = JoinTokenId::generate().unwrap();
        let again = one.later_join_secret(&first, &issue).hash();
        assert_eq!(one.later_join_secret(&first, &issue).hash(), again);
        assert_ne!(again, one.join_secret(&first).hash());
        assert_ne!(again, one.later_join_secret(&first, &later).hash());
        assert_ne!(again, one.later_join_secret(&second, &issue).hash());
    }
}
