//! Each file that cannot be used is named for what it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A directory with a good pair in it.
struct Files {
    directory: TempDir,
    files: TlsFiles,
    certificate_der: Vec<u8>,
    key: KeyPair,
}

impl Files {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { certificate: directory.path().join("api.pem"), key: directory.path().join("api.key") };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        let written = Self { directory, files, certificate_der: certificate.der().to_vec(), key };
        written.write_key(written.key.serialize_pem().as_bytes());
        written
    }

    fn write_key(&self, bytes: &[u8]) {
        fs::write(&self.files.key, bytes).unwrap();
        self.set_mode(0o600);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.files.key, Permissions::from_mode(mode)).unwrap();
    }

    fn error(&self) -> FileError {
        Pair::load(&self.files).unwrap_err()
    }
}

#[test]
fn a_good_pair_is_loaded_with_its_end() {
    let files = Files::new();
    let pair = Pair::load(&files.files).unwrap();
    assert!(pair.check_dates().is_ok() && pair.not_after.unwrap() > SystemTime::now());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let files = Files::new();
    for mode in [0o644, 0o640, 0o620, 0o604] {
        files.set_mode(mode);
        assert!(matches!(files.error(), FileError::Mode { mode: found, .. } if found == mode), "{mode:o}");
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let files = Files::new();
    fs::remove_file(&files.files.certificate).unwrap();
    let text = files.error().to_string();
    assert!(text.contains("tls_certificate") && text.contains("api.pem"), "{text}");
}

#[test]
fn empty_files_are_named_as_empty() {
    let files = Files::new();
    files.write_key(b"\n");
    assert!(matches!(files.error(), FileError::Empty { content: Content::Key, .. }));
    fs::write(&files.files.certificate, "").unwrap();
    assert!(matches!(files.error(), FileError::Empty { content: Content::Certificate, .. }));
}

#[test]
fn der_files_are_named_as_der_with_the_command_that_converts_them() {
    let files = Files::new();
    files.write_key(files.key.serialized_der());
    assert!(matches!(files.error(), FileError::Der { content: Content::Key, .. }));
    fs::write(&files.files.certificate, &files.certificate_der).unwrap();
    let text = files.error().to_string();
    assert!(text.contains("DER") && text.contains("openssl x509 -inform der"), "{text}");
}

#[test]
fn encrypted_keys_are_named_as_encrypted() {
    let files = Files::new();
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        files.write_key(text.as_bytes());
        assert!(matches!(files.error(), FileError::Encrypted { .. }));
    }
}

#[test]
fn exchanged_files_are_named_as_exchanged() {
    let files = Files::new();
    let certificate = fs::read(&files.files.certificate).unwrap();
    fs::write(&files.files.certificate, files.key.serialize_pem()).unwrap();
    assert!(matches!(files.error(), FileError::Exchanged { content: Content::Certificate, .. }));
    fs::write(&files.files.certificate, &certificate).unwrap();
    files.write_key(&certificate);
    assert!(matches!(files.error(), FileError::Exchanged { content: Content::Key, .. }));
}

#[test]
fn text_that_is_no_pem_is_malformed() {
    let files = Files::new();
    for text in ["nonsense", "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"] {
        files.write_key(text.as_bytes());
        let error = files.error();
        assert!(matches!(error, FileError::Malformed { .. } | FileError::Pair { .. }), "{error:?}");
        assert!(!error.to_string().contains("nonsense"));
    }
}

#[test]
fn a_key_of_another_certificate_is_named() {
    let files = Files::new();
    files.write_key(KeyPair::generate().unwrap().serialize_pem().as_bytes());
    assert!(matches!(files.error(), FileError::Mismatch { .. }));
}

#[test]
fn certificates_that_are_not_valid_now_are_named_with_the_date() {
    let expired = Files::with(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let error = Pair::load(&expired.files).unwrap().into_valid().unwrap_err();
    assert!(matches!(error, FileError::Expired { .. }) && error.to_string().contains("2021"), "{error}");
    let future = Files::with(|params| {
        params.not_before = date_time_ymd(2200, 1, 1);
        params.not_after = date_time_ymd(2201, 1, 1);
    });
    let pair = Pair::load(&future.files).unwrap();
    assert!(matches!(pair.check_dates(), Err(FileError::NotYetValid { .. })));
    assert!(future.directory.path().exists());
}
