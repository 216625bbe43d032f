//! Certificate files that are replaced on the disk while the daemon runs.

use std::future::pending;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use tokio::select;
use tokio::sync::watch::Receiver;
use tracing::{error, info, warn};

use crate::identity::files::{self, Files, FilesError};
use crate::identity::{Identity, Source};
use crate::sys::{Stamp, now_ms, off_thread};
use crate::telemetry::chain;

/// The files of one devbox's identity, as last read. `None` if the identity does not come from files.
#[derive(Debug)]
pub(super) struct CertificateFiles(Option<Watched>);

#[derive(Debug)]
struct Watched {
    files: Files,
    devbox: String,
    stamps: Stamps,
    /// Digest of their content, without the key.
    digest: Option<Vec<u8>>,
    /// The error last logged, so that each is logged once.
    logged: Option<String>,
}

type Stamps = [Option<Stamp>; 3];

impl CertificateFiles {
    /// Watches the files that `source` names, if it names files.
    pub(super) async fn watch(source: &Source, devbox: &str) -> Self {
        let Source::Files(files) = source.clone() else { return Self(None) };
        let devbox = devbox.to_owned();
        Self(Some(off_thread(|| Watched::new(files, devbox)).await))
    }

    /// Waits for the next identity in the files, which are compared when their directories change (`files`) and after each poll
    /// (`polls`). If this is dropped during a comparison, it watches no longer; the phase has ended then.
    pub(super) async fn identity(&mut self, files: &mut Receiver<()>, polls: &mut Receiver<()>) -> Identity {
        loop {
            if self.0.is_none() {
                return pending().await;
            }
            // Their senders outlive the daemon's service.
            select! {
                _ = files.changed() => {}
                _ = polls.changed() => {}
            }
            if let Some(identity) = self.compare().await {
                return identity;
            }
        }
    }
}

impl CertificateFiles {
    async fn compare(&mut self) -> Option<Identity> {
        let mut watched = self.0.take()?;
        let (watched, identity) = off_thread(move || {
            let identity = watched.compare();
            (watched, identity)
        })
        .await;
        self.0 = Some(watched);
        identity
    }
}

impl Watched {
    fn new(files: Files, devbox: String) -> Self {
        // Stamps first: a file that is replaced in between is read again.
        let stamps = stamps(&files);
        let digest = files::load(&files).ok().map(|identity| digest_of(&identity));
        Self { files, devbox, stamps, digest, logged: None }
    }

    /// Reads the files if one of them was replaced or written since they were last read.
    fn compare(&mut self) -> Option<Identity> {
        let stamps = stamps(&self.files);
        if stamps == self.stamps {
            return None;
        }
        match files::load(&self.files) {
            Ok(identity) => {
                self.stamps = stamps;
                self.logged = None;
                self.take(identity)
            }
            // Three files are not replaced at once: the next change tries again, and so does each poll until all can be read.
            Err(error) => {
                if !matches!(error, FilesError::Read { .. }) {
                    self.stamps = stamps;
                }
                self.log_once(chain(&error));
                None
            }
        }
    }

    fn take(&mut self, identity: Identity) -> Option<Identity> {
        let digest = Some(digest_of(&identity));
        if digest == self.digest {
            return None;
        }
        self.digest = digest;
        if identity.devbox_id() != self.devbox {
            error!(
                devbox = identity.devbox_id(),
                "the new certificate files belong to another devbox and are ignored: quiesce and resume to become that one"
            );
            return None;
        }
        if identity.validity().has_expired(now_ms()) {
            warn!("the new certificate files are ignored: that certificate has expired");
            return None;
        }
        info!(certificate = %self.files.certificate.display(), "the certificate files were replaced");
        Some(identity)
    }

    fn log_once(&mut self, message: String) {
        if self.logged.as_ref() != Some(&message) {
            warn!(error = message, "the certificate files were replaced, but are no valid identity yet");
            self.logged = Some(message);
        }
    }
}

fn stamps(files: &Files) -> Stamps {
    [&files.certificate, &files.key, &files.ca].map(|path| Stamp::of(path))
}

/// The key is left out: it belongs to the certificate.
fn digest_of(identity: &Identity) -> Vec<u8> {
    let material = identity.material();
    let mut digest = Context::new(&SHA256);
    for part in [material.chain, material.ca] {
        digest.update(&part.len().to_le_bytes());
        digest.update(part);
    }
    let digest: Digest = digest.finish();
    digest.as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tracing::subscriber::with_default;

    use super::*;
    use crate::telemetry::test_support::Log;

    #[test]
    fn invalid_files_are_read_again_only_when_one_of_them_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = Files { certificate: path("cert.pem"), key: path("key.pem"), ca: path("ca.pem") };
        for path in [&files.certificate, &files.key, &files.ca] {
            fs::write(path, "none").unwrap();
        }
        let mut watched = Watched::new(files.clone(), "dbx_1".to_owned());
        fs::write(&files.key, "another").unwrap();
        let (log, reads) = (Log::default(), |log: &Log| log.text().matches("chmod 600").count());
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        with_default(tracing_subscriber::fmt().with_writer(log.clone()).finish(), || {
            for _ in 0..3 {
                assert!(watched.compare().is_none());
            }
            assert_eq!(reads(&log), 1, "each reading warns that others can read the key");
            fs::write(&files.certificate, "yet another").unwrap();
            assert!(watched.compare().is_none());
            assert_eq!(reads(&log), 2);
        });
        assert_eq!(log.text().matches("are no valid identity yet").count(), 1);
    }
}
