//! The long poll: one request at a time, each with an HPKE key of its own.
//!
//! An unchanged bundle renews the lease; a new one is decrypted into locked memory and swapped in; a refusal of this
//! devbox wipes at once; after any other failure the secrets stay until their lease expires, and the poll is retried.

mod answer;
mod failure;
mod timing;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use devbox_secrets_proto::devbox::{BUNDLE_PATH, BundleRequest};
use devbox_secrets_proto::seal::BundleKey;
use hyper::StatusCode;
use tokio::select;
use tokio::time::sleep;
use tracing::warn;

use super::Progress;
use super::continuity::Steps;
use super::error::SyncError;
use super::renewal::Renewal;
use super::report::report_renewal;
use crate::control_plane::{Backoff, Client, Post, ServerUrl};
use crate::freshness::Freshness;
use crate::identity::{Identity, enroll};
use crate::memory::{Holding, Vault};
use crate::restart::Store;
use crate::sys::{SecretMemory, now_ms};
use crate::telemetry::chain;

pub(crate) use failure::inform_waiting_launches;
pub use timing::PollTimes;

use timing::SentRequest;

/// Time for an answer beyond the wait that the server is asked for.
const GRACE: Duration = Duration::from_secs(10);
/// Pause between two bundles, so that a burst of writes causes few of them.
const AFTER_CHANGE: Duration = Duration::from_millis(100);

/// Bytes of a bundle apart from values: texts, numbers and tag of as many entries as a devbox may have.
const OVERHEAD: usize = 8 << 20;

/// Fetches bundles for one devbox.
#[derive(Debug)]
pub struct Poller<'a> {
    identity: Identity,
    client: Client,
    memory: SecretMemory,
    vault: Arc<Vault>,
    progress: Arc<Progress>,
    times: PollTimes,
    freshness: Arc<Freshness>,
    backoff: Backoff,
    steps: Steps,
    /// The highest revision so far, also after a loss: an older one is refused as a rollback.
    highest: Option<u64>,
    renewal: Renewal,
    announced: bool,
    store: Option<&'a mut Store>,
}

impl<'a> Poller<'a> {
    /// Polls at `url` as `identity`.
    #[must_use]
    pub fn new(
        url: ServerUrl,
        identity: Identity,
        memory: SecretMemory,
        vault: Arc<Vault>,
        progress: Arc<Progress>,
        times: PollTimes,
        freshness: Arc<Freshness>,
    ) -> Self {
        progress.identified(&identity);
        freshness.begin();
        let client = Client::new(url, identity.config()).watched_by(Arc::clone(&freshness));
        let renewal = Renewal::first(identity.validity());
        Self {
            identity,
            client,
            memory,
            vault,
            progress,
            times,
            freshness,
            backoff: Backoff::new(),
            steps: Steps::begin(),
            highest: None,
            renewal,
            announced: false,
            store: None,
        }
    }

    /// The same, which stores identity and secrets for a successor, and continues with the vault's secrets.
    #[must_use]
    pub(crate) fn keeping(mut self, store: &'a mut Store) -> Self {
        store.keep_identity(&self.identity);
        self.store = Some(store);
        if let Ok(generation) = self.vault.current() {
            self.highest = Some(generation.revision());
            self.announce(&"the file-descriptor store");
        }
        self
    }

    /// Polls for ever. Cancel-safe: a bundle is accepted completely or not at all.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            let pause = self.turn().await.min(self.renewal.left(now_ms()));
            // Even a timer of zero would wake the process once more in each idle half minute.
            if pause.is_zero() {
                continue;
            }
            select! {
                () = sleep(pause) => {}
                () = self.freshness.wanted() => {}
            }
        }
    }

    /// Sends one request. Returns the pause after it.
    pub async fn turn(&mut self) -> Duration {
        if let Some(store) = &self.store {
            store.tend();
        }
        self.renew_when_due().await;
        match self.fetch().await {
            Ok(pause) => self.succeeded(pause),
            Err(error) => {
                let pause = self.failed(&error);
                self.freshness.failed();
                pause
            }
        }
    }

    fn succeeded(&mut self, pause: Duration) -> Duration {
        self.backoff.reset();
        self.progress.succeeded();
        pause
    }

    /// A failed renewal is logged and retried: a third of the certificate's validity period is left for that.
    async fn renew_when_due(&mut self) {
        if !self.renewal.is_due(now_ms()) {
            return;
        }
        match enroll::renew(&mut self.client, self.identity.devbox_id()).await {
            Ok(identity) => self.adopt(identity),
            Err(error) => {
                self.progress.metrics().sync_failed("renewal");
                self.renewal.failed(now_ms());
                warn!(error = %chain(&error), "the certificate is not renewed yet");
            }
        }
    }

    /// Uses `identity` from the next request on.
    pub(crate) fn adopt(&mut self, identity: Identity) {
        self.progress.metrics().certificate_renewed();
        report_renewal(&identity);
        self.progress.identified(&identity);
        let client = Client::new(self.client.url().clone(), identity.config());
        self.client = client.watched_by(Arc::clone(&self.freshness));
        self.renewal = Renewal::following(identity.validity(), now_ms());
        self.identity = identity.with_tried_tokens(self.identity.tried_tokens().clone());
        if let Some(store) = &mut self.store {
            store.keep_identity(&self.identity);
        }
    }

    /// Sends one poll. Its key, request and answer are dropped when this returns.
    async fn fetch(&mut self) -> Result<Duration, SyncError> {
        // Checked here: it may expire while the server is unreachable, and then no refusal comes.
        if self.identity.validity().has_expired(now_ms()) {
            return Err(SyncError::Expired);
        }
        // Connected before the poll is timed: the server holds it from its arrival, not from a
        // handshake.
        self.client.connect().await.inspect_err(|_| self.freshness.away())?;
        // One key a request: an answer that was recorded cannot be decrypted later.
        let key = BundleKey::generate();
        let held = self.held_revision();
        let wait = self.times.wait().min(self.renewal.left(now_ms()));
        let sent = SentRequest::now(self.freshness.asks(wait));
        let post = self.post(&key, held, sent.wait)?;
        let reply = self.client.post(post).await.inspect_err(|_| self.freshness.broke())?;
        let arrived = Instant::now();
        // A refusal may come from a proxy that never passed the nonce on, so the next request
        // repeats it.
        if reply.status.is_success() {
            self.steps.answered();
        }
        match (reply.status, held) {
            (StatusCode::OK, _) => {
                self.accept(&key, &reply, sent, arrived)?;
                self.progress.fetched_in(sent.at.elapsed());
                Ok(self.freshness.answered(sent.confirmed(), AFTER_CHANGE))
            }
            (StatusCode::NO_CONTENT, Some(_)) => {
                let pause = self.unchanged(sent);
                Ok(self.freshness.answered(sent.unchanged_at(), pause))
            }
            (StatusCode::NO_CONTENT, None) => Err(SyncError::UnchangedFromNothing),
            _ => Err(SyncError::Refused(reply.refusal())),
        }
    }

    fn held_revision(&self) -> Option<u64> {
        match self.vault.holding() {
            Holding::Ready { generation, .. } => Some(generation.revision()),
            Holding::Without(_) => None,
        }
    }

    fn post(
        &mut self,
        key: &BundleKey,
        known_revision: Option<u64>,
        wait: Duration,
    ) -> Result<Post<'static>, SyncError> {
        let request = BundleRequest {
            hpke_public_key: BASE64.encode(key.public_key()),
            known_revision,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            continuity: self.steps.next().map_err(|_| SyncError::Random)?,
        };
        let body = serde_json::json!(request).to_string().into_bytes();
        let limit = self.memory.limit().saturating_add(OVERHEAD);
        Ok(Post { path: BUNDLE_PATH, body, authorization: None, patience: wait + GRACE, limit })
    }
}
