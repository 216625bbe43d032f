//! Certificate files that somebody replaces on the disk while the daemon runs.

use std::future::pending;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use tokio::select;
use tokio::sync::watch::Receiver;
use tracing::{error, info, warn};

use crate::identity::files::{self, Files, FilesError};
use crate::identity::{Identity, Source};
use crate::sys::{Stamp, now_ms, off_thread};
use crate::telemetry::chain;

/// The files of one devbox's identity, as they were last read.
#[derive(Debug)]
pub(super) struct Replaced(Option<Watched>);

#[derive(Debug)]
struct Watched {
    files: Files,
    devbox: String,
    stamps: Stamps,
    /// Of what they held, without the key.
    read: Option<Vec<u8>>,
    /// What was told of files that make no identity.
    told: Option<String>,
}

type Stamps = [Option<Stamp>; 3];

impl Replaced {
    /// Watches the files that `source` names, if it names files.
    pub(super) async fn watch(source: &Source, devbox: &str) -> Self {
        let Source::Files(files) = source.clone() else { return Self(None) };
        let devbox = devbox.to_owned();
        Self(Some(off_thread(|| Watched::new(files, devbox)).await))
    }

    /// The next identity that the files make, looked for whenever something changes beside them (`files`) and after each poll
    /// (`polls`). Dropped during a look, it watches no more: then the identity's life is over.
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
            if let Some(identity) = self.look().await {
                return identity;
            }
        }
    }
}

impl Replaced {
    async fn look(&mut self) -> Option<Identity> {
        let mut watched = self.0.take()?;
        let (watched, identity) = off_thread(move || {
            let identity = watched.look();
            (watched, identity)
        })
        .await;
        self.0 = Some(watched);
        identity
    }
}

impl Watched {
    fn new(files: Files, devbox: String) -> Self {
        // In this order: what is replaced in between is read again.
        let stamps = stamps(&files);
        let read = files::load(&files).ok().map(|identity| digest(&identity));
        Self { files, devbox, stamps, read, told: None }
    }

    /// Reads the files if one of them is another, or was written, since they were last read.
    fn look(&mut self) -> Option<Identity> {
        let stamps = stamps(&self.files);
        if stamps == self.stamps {
            return None;
        }
        match files::load(&self.files) {
            Ok(identity) => {
                self.stamps = stamps;
                self.told = None;
                self.take(identity)
            }
            // Three files are not replaced at once: tried again with the next one, or until all can be read.
            Err(error) => {
                if !matches!(error, FilesError::Read { .. }) {
                    self.stamps = stamps;
                }
                self.tell(chain(&error));
                None
            }
        }
    }

    fn take(&mut self, identity: Identity) -> Option<Identity> {
        let read = Some(digest(&identity));
        if read == self.read {
            return None;
        }
        self.read = read;
        if identity.devbox_id() != self.devbox {
            error!(
                devbox = identity.devbox_id(),
                "the certificate files are another devbox's now, and are not taken up: quiesce and resume to become that one"
            );
            return None;
        }
        if identity.validity().has_expired(now_ms()) {
            warn!("the new certificate files are not taken up: that certificate has expired");
            return None;
        }
        info!(certificate = %self.files.certificate.display(), "the certificate files were replaced");
        Some(identity)
    }

    fn tell(&mut self, message: String) {
        if self.told.as_ref() != Some(&message) {
            warn!(error = message, "the certificate files were replaced, and make no identity yet");
            self.told = Some(message);
        }
    }
}

fn stamps(files: &Files) -> Stamps {
    [&files.certificate, &files.key, &files.ca].map(|path| Stamp::of(path))
}

/// The key is its certificate's: it need not be looked at.
fn digest(identity: &Identity) -> Vec<u8> {
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
    fn files_that_make_no_identity_are_read_again_only_when_one_of_them_is_another() {
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
                assert!(watched.look().is_none());
            }
            assert_eq!(reads(&log), 1, "each reading says that others can read the key");
            fs::write(&files.certificate, "yet another").unwrap();
            assert!(watched.look().is_none());
            assert_eq!(reads(&log), 2);
        });
        assert_eq!(log.text().matches("make no identity yet").count(), 1);
    }
}
