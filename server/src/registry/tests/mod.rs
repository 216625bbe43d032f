//! The decisions, over a real SQLite state.

mod budgets;
mod bundles;
mod ca_rotation;
mod clones;
mod devboxes;
mod enrolment;
mod open;
mod rekeying;
mod retention;
mod retries;
mod secrets;
mod tokens;

use std::collections::BTreeMap;
use std::path::PathBuf;

use devbox_secrets_proto::devbox::IssuedIdentity;
use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use devbox_secrets_tests::devbox::Applicant;
use devbox_secrets_tests::wait;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::*;
use crate::store::Location as _;
use crate::store::sqlite::StateDirectory;

/// A server's decisions over a new state.
struct World {
    registry: Registry,
    state: StateDirectory,
    directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let registry = set_up(&state).await.unwrap();
        Self { registry, state, directory }
    }

    /// A state with the account `acme`, and a caller with a token for it.
    async fn with_account() -> (Self, Caller) {
        let world = Self::new().await;
        let caller = world.caller("acme").await;
        (world, caller)
    }

    /// The same, with a devbox that gets every secret.
    async fn with_devbox() -> (Self, Caller, DevboxView, JoinToken) {
        let (world, caller) = Self::with_account().await;
        let (devbox, token) = world.devbox(&caller, &[]).await;
        (world, caller, devbox, token)
    }

    /// The same, with a devbox that has joined.
    async fn with_joined() -> (Self, Caller, DevboxView, DevboxPeer) {
        let (world, caller) = Self::with_account().await;
        let (devbox, peer) = world.joined(&caller, &[]).await;
        (world, caller, devbox, peer)
    }

    /// An account, and a caller with a token for it.
    async fn caller(&self, account: &str) -> Caller {
        self.registry.create_account(&Actor::Server, account, true).await.unwrap();
        let token = self.token(account).await;
        self.registry.authenticate(&token, None).await.unwrap()
    }

    async fn token(&self, account: &str) -> SecretBytes {
        let (_, token) = self
            .registry
            .create_token(&Actor::Server, account, "test", None, Scopes::default())
            .await
            .unwrap();
        bytes(token.expose_token())
    }

    async fn secret(&self, caller: &Caller, name: &str, value: &str) -> SecretView {
        self.registry.create_secret(caller, name, bytes(value)).await.unwrap()
    }

    async fn devbox(&self, caller: &Caller, bindings: &[(&str, &str)]) -> (DevboxView, JoinToken) {
        let secrets = bindings.iter().map(|(env, name)| ((*env).to_owned(), (*name).to_owned()));
        let secrets: BTreeMap<_, _> = secrets.collect();
        let secrets = if secrets.is_empty() { None } else { Some(secrets) };
        let new = NewDevbox { name: Some("box".to_owned()), secrets, ..NewDevbox::default() };
        self.registry.create_devbox(caller, new).await.unwrap()
    }

    async fn enrol(&self, token: &JoinToken) -> Result<IssuedIdentity, Refusal> {
        let csr = csr(token.devbox_id());
        self.registry.enroll(&bytes(&token.expose_token()), &csr, None).await
    }

    /// A devbox that has joined.
    async fn joined(&self, caller: &Caller, bindings: &[(&str, &str)]) -> (DevboxView, DevboxPeer) {
        let (devbox, token) = self.devbox(caller, bindings).await;
        let identity = self.enrol(&token).await.unwrap();
        (devbox, self.peer(&identity))
    }

    fn peer(&self, identity: &IssuedIdentity) -> DevboxPeer {
        self.peer_at(identity, 7)
    }

    /// The peer at 192.0.2.`host`.
    fn peer_at(&self, identity: &IssuedIdentity, host: u8) -> DevboxPeer {
        let leaf = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        self.registry.peer(&leaf, Some([192, 0, 2, host].into())).unwrap()
    }

    /// The newest row of the audit: action, outcome, reason.
    async fn newest(&self) -> (String, String, String) {
        let entry = self.registry.audit(None, 1).await.unwrap().remove(0);
        (entry.action, entry.outcome, entry.reason.unwrap_or_default())
    }

    /// `refused` is a refusal of this kind and code, and the newest row of the audit.
    async fn audited_refusal<T: std::fmt::Debug>(
        &self,
        refused: Result<T, Refusal>,
        action: &str,
        kind: RefusalKind,
        code: &str,
    ) {
        assert_eq!(refusal(refused), (kind, code));
        assert_eq!(self.newest().await, (action.to_owned(), "refused".to_owned(), code.to_owned()));
    }
}

impl Registry {
    /// The newest `limit` rows of the audit, newest first; of one account or of all.
    async fn audit(&self, account: Option<&AccountId>, limit: u32) -> Result<Vec<AuditEntry>, Refusal> {
        Ok(self.store().audit(account, limit).await?)
    }
}

impl StateDirectory {
    fn master_key(&self) -> PathBuf {
        self.database().with_file_name("master.key")
    }
}

/// As `init` does.
async fn set_up(state: &StateDirectory) -> Result<Registry, OpenError> {
    let claim = state.claim()?;
    Registry::open_with_own_key(state, &state.master_key(), Settings::default(), Access::Founder(&claim))
        .await
}

/// As a program beside the server does.
async fn open(state: &StateDirectory) -> Result<Registry, OpenError> {
    Registry::open_with_own_key(state, &state.master_key(), Settings::default(), Access::Shared).await
}

fn bytes(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes().to_vec())
}

/// A request for a certificate that names `devbox`.
fn csr(devbox: &str) -> String {
    Applicant::new(devbox).request()
}

/// The kind and the code of what should be a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (RefusalKind, &'static str) {
    let refusal = result.unwrap_err();
    (refusal.kind(), refusal.code())
}
