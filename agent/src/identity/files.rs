//! A ready identity: certificate, key and CA from three files, or from systemd credentials.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

use super::token::{open_regular, warn_if_readable_by_others};
use super::{Identity, InvalidIdentity};

/// Longest file that is read, in bytes: a chain of several certificates.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// The paths of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The devbox's certificate and any intermediates (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM: PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// The devbox CA (PEM, one or more).
    pub ca: PathBuf,
}

/// Why the files are not an identity.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{} cannot be read: check path and permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file has no private key.
    #[error("{} holds no private key in PEM form", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The three do not form an identity.
    #[error("{} and its key and CA are not usable", certificate.display())]
    Invalid {
        /// The certificate's file.
        certificate: PathBuf,
        /// The reason.
        #[source]
        source: InvalidIdentity,
    },
}

/// Reads the files. The key's text is wiped after parsing.
///
/// # Errors
/// [`FilesError`].
pub fn load(files: &Files) -> Result<Identity, FilesError> {
    let chain = read(&files.certificate, false)?;
    let ca = read(&files.ca, false)?;
    let key = read(&files.key, true)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| FilesError::Key { path: files.key.clone() })?;
    Identity::new(&chain, key, &ca)
        .map_err(|source| FilesError::Invalid { certificate: files.certificate.clone(), source })
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, FilesError> {
    read_bounded(path, secret).map_err(|source| FilesError::Read { path: path.to_owned(), source })
}

fn read_bounded(path: &Path, secret: bool) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open_regular(path)?;
    if secret {
        warn_if_readable_by_others(path, &file)?;
    }
    let len = file.metadata()?.len();
    if len > MAX_FILE_LEN {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 64 KiB: not a certificate or key",
        ));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(MAX_FILE_LEN).read_to_end(&mut text)?;
    Ok(text)
}
