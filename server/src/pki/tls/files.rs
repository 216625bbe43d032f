//! Certificate and key of the public listener, from PEM files. An unusable file is refused with the
//! specific reason.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::provider;
use crate::config::TlsFiles;
use crate::crypto::open_to_others;

/// Longest file that is read, in bytes: a chain of many certificates is a tenth of it.
const MAX_FILE_LEN: u64 = 1024 * 1024;

/// The expected content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A certificate chain.
    Certificate,
    /// A private key.
    Key,
}

impl Content {
    fn label(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Certificate => "tls_certificate",
            Self::Key => "tls_key",
        }
    }
}

/// Why a file of the public listener cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{setting} {} cannot be read: does it exist, and may this user read it?", path.display(), setting = content.setting())]
    Read {
        /// The expected content.
        content: Content,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The key is open to others.
    #[error("tls_key {path} is open to others (mode {mode:04o}): run chmod 600 {path}", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is empty.
    #[error("{setting} {} is empty: write the {label} into it, as PEM", path.display(), setting = content.setting(), label = content.label())]
    Empty {
        /// The expected content.
        content: Content,
        /// The file.
        path: PathBuf,
    },
    /// The file is too large.
    #[error("{setting} {} is longer than 1 MiB, so it is not a {label}", path.display(), setting = content.setting(), label = content.label())]
    TooLong {
        /// The expected content.
        content: Content,
        /// The file.
        path: PathBuf,
    },
    /// The file is DER.
    #[error("{setting} {} is DER, not PEM: convert it with {command}", path.display(), setting = content.setting(), command = from_der(*content))]
    Der {
        /// The expected content.
        content: Content,
        /// The file.
        path: PathBuf,
    },
    /// The key has a passphrase.
    #[error("tls_key {} is encrypted, and the server asks for no passphrase: write it unencrypted (openssl pkey -in FILE -out NEW) to a file of mode 0600", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A file for the other one.
    #[error("{setting} {} holds a {found}: are tls_certificate and tls_key exchanged?", path.display(), setting = content.setting())]
    Exchanged {
        /// The expected content.
        content: Content,
        /// The content found.
        found: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or damaged.
    #[error("{setting} {} holds no readable {label}: write it as PEM, from \"-----BEGIN\" to \"-----END\"", path.display(), setting = content.setting(), label = content.label())]
    Malformed {
        /// The expected content.
        content: Content,
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("tls_key {} does not belong to the first certificate in {}: the server's own certificate goes first, and its key beside it", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The pair is of no use to a TLS server.
    #[error("tls_certificate {} and its key cannot be used for TLS 1.3", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: rustls::Error,
    },
    /// A certificate of the chain has expired.
    #[error("tls_certificate {} expired at {not_after}: renew it, and reload the server", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// The end of its validity.
        not_after: ASN1Time,
    },
    /// A certificate of the chain is not valid yet.
    #[error("tls_certificate {} is not valid before {not_before}: is the clock right?", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The start of its validity.
        not_before: ASN1Time,
    },
}

fn from_der(content: Content) -> &'static str {
    match content {
        Content::Certificate => "openssl x509 -inform der -in FILE -out NEW",
        Content::Key => "openssl pkey -inform der -in FILE -out NEW",
    }
}

/// A certificate chain and its key, which belong together.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    validity: Result<(), FileError>,
    /// The earliest end in the chain.
    pub(super) not_after: Option<SystemTime>,
}

impl Pair {
    /// Reads both files.
    ///
    /// # Errors
    /// [`FileError`], but for the dates: see [`Pair::check_dates`].
    pub(super) fn load(files: &TlsFiles) -> Result<Self, FileError> {
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        let (validity, not_after) = dates(&files.certificate, &chain)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                FileError::Mismatch { key: files.key.clone(), certificate: files.certificate.clone() }
            }
            source => FileError::Pair { path: files.certificate.clone(), source },
        })?;
        Ok(Self { certified, validity, not_after })
    }

    /// Whether every certificate of the chain is valid now.
    ///
    /// # Errors
    /// [`FileError::Expired`], [`FileError::NotYetValid`].
    pub(super) fn check_dates(&self) -> Result<(), &FileError> {
        self.validity.as_ref().copied()
    }

    /// As [`Pair::check_dates`].
    ///
    /// # Errors
    /// The same.
    pub(super) fn into_valid(self) -> Result<Self, FileError> {
        self.validity?;
        Ok(Self { validity: Ok(()), ..self })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let content = Content::Certificate;
    let bytes = read(content, path, |_| Ok(()))?;
    let malformed = || FileError::Malformed { content, path: path.to_owned() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|_| malformed())?;
    if chain.is_empty() { Err(malformed()) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let content = Content::Key;
    let bytes = read(content, path, |file| {
        let mode = open_to_others(file, path).map_err(|source| FileError::Read {
            content,
            path: path.to_owned(),
            source,
        })?;
        mode.map_or(Ok(()), |mode| Err(FileError::Mode { path: path.to_owned(), mode }))
    })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| FileError::Malformed { content, path: path.to_owned() })
}

/// The content of a file that looks like PEM of the right kind.
fn read(
    content: Content,
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), FileError>,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |source| FileError::Read { content, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    check(&file)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match recognised(content, path, &bytes) {
        Some(error) => Err(error),
        None => Ok(bytes),
    }
}

/// The common mistakes, each for what it is.
fn recognised(content: Content, path: &Path, bytes: &[u8]) -> Option<FileError> {
    let path = path.to_owned();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let has_certificate = has("-----BEGIN CERTIFICATE-----");
    let has_key = has("PRIVATE KEY-----");
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Some(FileError::TooLong { content, path });
    }
    if bytes.trim_ascii().is_empty() {
        return Some(FileError::Empty { content, path });
    }
    // A DER SEQUENCE with a length of one to three bytes (ITU-T X.690), which no text begins with.
    if let [0x30, 0x81..=0x83, ..] = bytes {
        return Some(FileError::Der { content, path });
    }
    match content {
        Content::Key if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => {
            Some(FileError::Encrypted { path })
        }
        Content::Key if has_certificate && !has_key => {
            Some(FileError::Exchanged { content, found: "certificate", path })
        }
        Content::Certificate if has_key && !has_certificate => {
            Some(FileError::Exchanged { content, found: "private key", path })
        }
        _ => None,
    }
}

type Dates = (Result<(), FileError>, Option<SystemTime>);

/// Whether every certificate is valid now, and when the first of them ends.
fn dates(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Dates, FileError> {
    let mut validity = Ok(());
    let mut ends = Vec::new();
    for certificate in chain {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| FileError::Malformed { content: Content::Certificate, path: path.to_owned() })?;
        let not_before = certificate.validity().not_before;
        let not_after = certificate.validity().not_after;
        ends.extend(u64::try_from(not_after.timestamp()).ok());
        if validity.is_ok() && not_after < ASN1Time::now() {
            validity = Err(FileError::Expired { path: path.to_owned(), not_after });
        }
        if validity.is_ok() && not_before > ASN1Time::now() {
            validity = Err(FileError::NotYetValid { path: path.to_owned(), not_before });
        }
    }
    let end = ends.into_iter().min().map(|end| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(end));
    Ok((validity, end))
}

#[cfg(test)]
mod tests;
