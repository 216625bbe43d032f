//! The master key: one file, never in the database. It wraps the accounts' keys and the devbox CA's
//! private key.
//!
//! A wrapped record is `master key id:[u8; 8]  record`, so that a rotation recognises the records
//! that are still under the old key.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::secret::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

use super::account_key::AccountKey;
use super::id::AccountId;
use super::open_to_others;
use super::sealed::{CipherKey, CryptoError, KEY_LEN, fill_random};

/// Length of a master key's id, with which everything begins that it wraps, in bytes.
pub(crate) const MASTER_KEY_ID_LEN: u32 = 8;

const ID_LEN: usize = MASTER_KEY_ID_LEN as usize;

/// The longest file that is read, in bytes: the key in base64 and some white space.
const MAX_FILE_LEN: usize = 128;

/// Why there is no master key. Never repeats its bytes.
#[derive(Debug, Error)]
pub enum MasterKeyError {
    /// The file cannot be read.
    #[error("the master key {path} cannot be read: restore it from its backup, or name the right file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or write the file.
    #[error("the master key {path} is open to others (mode {mode:04o}): run chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the master key {path} holds neither 32 raw bytes nor 32 bytes in base64: restore it from its backup"
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("the master key {path} cannot be created (an existing one is never overwritten)")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No random numbers.
    #[error("a master key cannot be made")]
    Random(#[source] CryptoError),
}

/// The key that all other keys are wrapped under. Its bytes are wiped once the cipher is set up.
pub(crate) struct MasterKey {
    cipher: CipherKey,
    id: [u8; ID_LEN],
    file: PathBuf,
}

impl MasterKey {
    /// Reads the key from `path`: 32 raw bytes, or their base64 (RFC 4648 section 4) with white
    /// space around it.
    ///
    /// # Errors
    /// [`MasterKeyError`]; a file with [permissions for others](open_to_others) is refused.
    pub(crate) fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let unreadable = |source| MasterKeyError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        // The mode is read from the open file, so the path cannot be exchanged after the check.
        if let Some(mode) = open_to_others(&file, path).map_err(unreadable)? {
            return Err(MasterKeyError::Mode { path: path.to_owned(), mode });
        }
        // A buffer of fixed size never reallocates, so no unwiped copy of the key is left.
        let mut buffer = Zeroizing::new([0; MAX_FILE_LEN]);
        let len = read_up_to(&mut file, &mut *buffer).map_err(unreadable)?;
        let key = decode(&buffer[..len]).ok_or_else(|| MasterKeyError::Content { path: path.to_owned() })?;
        Ok(Self::from_bytes(&key, path))
    }

    /// Makes a new random key and writes it to `path` (base64, mode 0600, on disk before this
    /// returns).
    ///
    /// # Errors
    /// [`MasterKeyError::Create`], also if `path` exists.
    pub(crate) fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        fill_random(&mut *key).map_err(MasterKeyError::Random)?;
        write_new(path, &key).map_err(|source| MasterKeyError::Create { path: path.to_owned(), source })?;
        Ok(Self::from_bytes(&key, path))
    }

    /// The key at `path`, made first if the file is absent.
    ///
    /// # Errors
    /// As [`MasterKey::load`] and [`MasterKey::create`].
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::load(path) {
            Err(MasterKeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(path)
            }
            loaded => loaded,
        }
    }

    fn from_bytes(key: &[u8; KEY_LEN], file: &Path) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"devbox-secrets master key id");
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&tag.as_ref()[..ID_LEN]);
        Self { cipher: CipherKey::new(key), id, file: file.to_owned() }
    }

    /// The file in which a rotation keeps the new key until every record is wrapped under it.
    pub(crate) fn next_file(file: &Path) -> PathBuf {
        let mut next = file.as_os_str().to_owned();
        next.push(".next");
        next.into()
    }

    /// Whether this is the key that `record` was wrapped under.
    pub(crate) fn has_wrapped(&self, record: &[u8]) -> bool {
        record.first_chunk() == Some(&self.id)
    }

    /// The key that `record` was wrapped under, if this key's file or the file of a rotation beside
    /// it holds that key.
    pub(crate) fn reload(&self, record: &[u8]) -> Option<Self> {
        // The staged file first: if a rotation renames it before it is read, the other one is the
        // new key already.
        let files = [Self::next_file(&self.file), self.file.clone()];
        let mut keys = files.iter().filter_map(|file| Self::load(file).ok());
        let found = keys.find(|key| key.has_wrapped(record))?;
        Some(Self { file: self.file.clone(), ..found })
    }

    /// Puts a copy of the key at `new` beside `file`, on disk before this returns, so that every
    /// server that uses `file` finds it.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub(crate) fn stage(new: &Path, file: &Path) -> Result<(), MasterKeyError> {
        let unreadable = |source| MasterKeyError::Read { path: new.to_owned(), source };
        let mut buffer = Zeroizing::new([0; MAX_FILE_LEN]);
        let len =
            File::open(new).and_then(|mut open| read_up_to(&mut open, &mut *buffer)).map_err(unreadable)?;
        let key = decode(&buffer[..len]).ok_or_else(|| MasterKeyError::Content { path: new.to_owned() })?;
        let next = Self::next_file(file);
        // A rotation that was interrupted may have left a file. `write_new` never overwrites one.
        let staged = match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => write_new(&next, &key),
        };
        staged.map_err(|source| MasterKeyError::Create { path: next, source })
    }

    /// Completes a rotation: the staged key replaces `file`. Without a staged key it does nothing.
    ///
    /// # Errors
    /// [`MasterKeyError::Create`].
    pub(crate) fn promote(file: &Path) -> Result<(), MasterKeyError> {
        let renamed = match std::fs::rename(Self::next_file(file), file) {
            // A missing staged file is fine: the rename was done before, and only its sync may be
            // due.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_parent(file),
        };
        renamed.map_err(|source| MasterKeyError::Create { path: file.to_owned(), source })
    }

    /// Opens what this key wrapped for `purpose` and wraps it under `new`.
    pub(crate) fn rewrap(&self, purpose: &str, wrapped: &[u8], new: &Self) -> Result<Vec<u8>, CryptoError> {
        new.wrap(purpose, self.unwrap(purpose, wrapped)?.expose_secret())
    }

    /// As [`MasterKey::rewrap`] for an account's key.
    pub(crate) fn rewrap_account_key(
        &self,
        account: &AccountId,
        wrapped: &[u8],
        new: &Self,
    ) -> Result<Vec<u8>, CryptoError> {
        self.rewrap(&account_purpose(account), wrapped, new)
    }

    /// Encrypts `plaintext` for the place `purpose`.
    pub(crate) fn wrap(&self, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let record = self.cipher.seal(purpose.as_bytes(), plaintext)?;
        Ok([&self.id[..], &record].concat())
    }

    /// Opens what [`MasterKey::wrap`] made for the same `purpose`.
    ///
    /// # Errors
    /// [`CryptoError::Open`] if it was written under another master key or for another purpose.
    pub(crate) fn unwrap(&self, purpose: &str, wrapped: &[u8]) -> Result<SecretBytes, CryptoError> {
        let (id, record) = wrapped.split_first_chunk::<ID_LEN>().ok_or(CryptoError::Format)?;
        if *id != self.id {
            return Err(CryptoError::Open);
        }
        self.cipher.open(purpose.as_bytes(), record.to_vec())
    }

    /// A new account's random key in its wrapped form.
    pub(crate) fn new_account_key(&self, account: &AccountId) -> Result<Vec<u8>, CryptoError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        fill_random(&mut *key)?;
        self.wrap(&account_purpose(account), &*key)
    }

    /// Begins to re-key `account`: a wrapped record of a new key and of the one in `wrapped`.
    /// `None` if that was begun before.
    pub(crate) fn begin_rekey(
        &self,
        account: &AccountId,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>, CryptoError> {
        let purpose = account_purpose(account);
        let key = self.unwrap(&purpose, wrapped)?;
        let old = match key.expose_secret() {
            old if old.len() == KEY_LEN => old,
            both if both.len() == 2 * KEY_LEN => return Ok(None),
            _ => return Err(CryptoError::Format),
        };
        let mut both = Zeroizing::new([0; 2 * KEY_LEN]);
        fill_random(&mut both[..KEY_LEN])?;
        both[KEY_LEN..].copy_from_slice(old);
        self.wrap(&purpose, &*both).map(Some)
    }

    /// Ends what [`MasterKey::begin_rekey`] began: a wrapped record of the new key alone. `None` if
    /// it has ended.
    pub(crate) fn end_rekey(
        &self,
        account: &AccountId,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>, CryptoError> {
        let purpose = account_purpose(account);
        let key = self.unwrap(&purpose, wrapped)?;
        match key.expose_secret().split_first_chunk::<KEY_LEN>() {
            Some((_, [])) => Ok(None),
            Some((new, _)) => self.wrap(&purpose, new).map(Some),
            None => Err(CryptoError::Format),
        }
    }

    /// Unwraps `account`'s key.
    pub(crate) fn account_key(&self, account: &AccountId, wrapped: &[u8]) -> Result<AccountKey, CryptoError> {
        let key = self.unwrap(&account_purpose(account), wrapped)?;
        let (key, previous) = key.expose_secret().split_first_chunk().ok_or(CryptoError::Format)?;
        if previous.is_empty() {
            return Ok(AccountKey::new(account.clone(), key));
        }
        let previous = previous.try_into().map_err(|_| CryptoError::Format)?;
        Ok(AccountKey::following(account.clone(), key, previous))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

fn account_purpose(account: &AccountId) -> String {
    format!("account key {account}")
}

/// Fills `buffer` as far as the file reaches.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..])? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

fn decode(content: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if content.len() == KEY_LEN {
        key.copy_from_slice(content);
        return Some(key);
    }
    // The decoder asks for room of a whole multiple of three bytes.
    let mut decoded = Zeroizing::new([0; MAX_FILE_LEN]);
    let len = STANDARD.decode_slice(content.trim_ascii(), &mut *decoded).ok()?;
    (len == KEY_LEN).then(|| {
        key.copy_from_slice(&decoded[..KEY_LEN]);
        key
    })
}

fn write_new(path: &Path, key: &[u8; KEY_LEN]) -> io::Result<()> {
    let mut text = Zeroizing::new([0; MAX_FILE_LEN]);
    let len = STANDARD.encode_slice(key, &mut *text).map_err(io::Error::other)?;
    text[len] = b'\n';
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&text[..=len])?;
    file.sync_all()?;
    sync_parent(path)
}

/// Puts the directory's entry for `path` on disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    impl MasterKey {
        pub(crate) fn is(&self, other: &Self) -> bool {
            self.id == other.id
        }
    }
    use crate::crypto::ValueLocation;
    use crate::crypto::id::SecretId;

    fn write(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_created_key_is_private_and_loads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let wrapped = MasterKey::create(&path).unwrap().wrap("test", b"wrapped").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let opened = MasterKey::load(&path).unwrap().unwrap("test", &wrapped).unwrap();
        assert_eq!(opened.expose_secret(), b"wrapped");
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        MasterKey::create(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(MasterKey::create(&path), Err(MasterKeyError::Create { .. })));
        MasterKey::load_or_create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn raw_bytes_and_base64_are_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let raw = directory.path().join("raw");
        let text = directory.path().join("text");
        write(&raw, &[7; KEY_LEN]);
        write(&text, format!("  {}\n\n", STANDARD.encode([7; KEY_LEN])).as_bytes());
        let wrapped = MasterKey::load(&raw).unwrap().wrap("test", b"x").unwrap();
        assert!(MasterKey::load(&text).unwrap().unwrap("test", &wrapped).is_ok());
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::Read { .. })));
        for content in [&b""[..], b"short", &[7; 33], &[b'A'; 200], b"not base64!"] {
            write(&path, content);
            assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::Content { .. })), "{content:?}");
        }
        write(&path, &[7; KEY_LEN]);
        for mode in [0o640, 0o604, 0o620, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::Mode { .. })), "{mode:o}");
        }
    }

    #[test]
    fn another_master_key_or_purpose_opens_nothing() {
        let file = Path::new("/nonexistent");
        let (one, other) =
            (MasterKey::from_bytes(&[1; KEY_LEN], file), MasterKey::from_bytes(&[2; KEY_LEN], file));
        let account = AccountId::new("acc_1");
        let wrapped = one.new_account_key(&account).unwrap();
        assert!(one.account_key(&account, &wrapped).is_ok());
        assert_eq!(other.account_key(&account, &wrapped).err(), Some(CryptoError::Open));
        assert_eq!(one.account_key(&AccountId::new("acc_2"), &wrapped).err(), Some(CryptoError::Open));
    }

    #[test]
    fn a_rotated_key_is_found_before_and_after_it_takes_the_old_ones_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("master.key");
        let new_file = directory.path().join("new.key");
        let old = MasterKey::create(&file).unwrap();
        let new = MasterKey::create(&new_file).unwrap();
        let wrapped = old.rewrap("test", &old.wrap("test", b"kept").unwrap(), &new).unwrap();
        assert!(old.reload(&wrapped).is_none() && old.unwrap("test", &wrapped).is_err());
        MasterKey::stage(&new_file, &file).unwrap();
        let found = old.reload(&wrapped).unwrap();
        assert!(found.is(&new) && found.unwrap("test", &wrapped).unwrap().expose_secret() == b"kept");
        MasterKey::promote(&file).unwrap();
        MasterKey::promote(&file).unwrap();
        assert!(old.reload(&wrapped).is_some() && MasterKey::load(&file).unwrap().is(&new));
        assert!(!MasterKey::next_file(&file).exists());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn while_an_account_is_re_keyed_both_its_keys_open_and_the_new_one_seals() {
        let master = MasterKey::from_bytes(&[1; KEY_LEN], Path::new("/nonexistent"));
        let account = AccountId::new("acc_1");
        let secret = SecretId::new("sec_1");
        let at = ValueLocation { secret: &secret, version: 1 };
        let value = SecretBytes::new(b"value".to_vec());
        let before = master.new_account_key(&account).unwrap();
        let old = master.account_key(&account, &before).unwrap();
        let old_record = old.seal(at, &value).unwrap();

        let during = master.begin_rekey(&account, &before).unwrap().unwrap();
        assert_eq!(master.begin_rekey(&account, &during).unwrap(), None, "an interrupted one goes on");
        let both = master.account_key(&account, &during).unwrap();
        assert_eq!(both.open(at, old_record.clone()).unwrap().expose_secret(), b"value");
        let mut in_place = old_record.clone();
        let range = both.open_in_place(at, &mut in_place).unwrap();
        assert_eq!(&in_place[range], b"value");
        let new_record = both.reseal(at, old_record.clone()).unwrap().unwrap();
        assert_eq!(both.reseal(at, new_record.clone()).unwrap(), None);

        let after = master.end_rekey(&account, &during).unwrap().unwrap();
        assert_eq!(master.end_rekey(&account, &after).unwrap(), None);
        let new = master.account_key(&account, &after).unwrap();
        assert_eq!(new.open(at, new_record.clone()).unwrap().expose_secret(), b"value");
        assert_eq!(new.open(at, both.seal(at, &value).unwrap()).unwrap().expose_secret(), b"value");
        assert_eq!(new.open(at, old_record).err(), Some(CryptoError::Open));
        assert_eq!(old.open(at, new_record).err(), Some(CryptoError::Open));
    }
}
