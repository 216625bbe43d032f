//! The long poll: one request at a time, each with an HPKE key of its own.
//!
//! An unchanged bundle renews the lease; a new one is decrypted into locked memory and swapped in; a refusal of this
//! devbox wipes at once; anything else leaves what is held to its lease and tries again.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use devbox_secrets_proto::bundle::{Bundle, InvalidBundle};
use devbox_secrets_proto::devbox::{BUNDLE_PATH, BundleRequest};
use devbox_secrets_proto::seal::{BundleKey, Context};
use hyper::StatusCode;
use tokio::time::sleep;
use tracing::{error, warn};

use super::Progress;
use super::continuity::Steps;
use super::error::SyncError;
use super::renewal::Renewal;
use super::report::{report_bundle, report_renewal};
use crate::control_plane::{Backoff, Client, Post, Reply, ServerUrl};
use crate::identity::certificate::now_ms;
use crate::identity::{Identity, enroll};
use crate::memory::{BootTime, Generation, Holding, Loss, SecretMemory, Vault};
use crate::restart::Store;
use crate::telemetry::{chain, service_manager};

/// Time for an answer beyond the wait that was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// Between two bundles: a burst of writes is taken up as few.
const AFTER_CHANGE: Duration = Duration::from_millis(100);
/// After an answer that came without the wait that was asked for.
const AFTER_HURRY: Duration = Duration::from_secs(1);
/// After a refusal of this devbox, which only an operator can end.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Bytes of a bundle that are no value: each entry's texts, numbers and tag, for as many as a devbox may have.
const OVERHEAD: usize = 8 << 20;

/// Times and bounds of the poll.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long the server may hold a request while nothing changes.
    pub poll_wait: Duration,
    /// How long secrets are served after its last answer.
    pub max_stale: Duration,
}

impl Pace {
    /// A held request must not outlast the lease that its answer renews.
    fn wait(&self) -> Duration {
        self.poll_wait.min(self.max_stale / 2)
    }
}

/// Fetches bundles for one devbox.
#[derive(Debug)]
pub struct Poller<'a> {
    identity: Identity,
    client: Client,
    memory: SecretMemory,
    vault: Arc<Vault>,
    progress: Arc<Progress>,
    pace: Pace,
    backoff: Backoff,
    steps: Steps,
    /// The highest revision ever held, also after a loss: nothing older is taken up.
    highest: Option<u64>,
    renewal: Renewal,
    announced: bool,
    /// What a successor of this process will find.
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
        pace: Pace,
    ) -> Self {
        progress.identified(&identity);
        let client = Client::new(url, identity.config());
        let renewal = Renewal::first(identity.validity());
        let backoff = Backoff::new();
        let (highest, announced) = (None, false);
        let store = None;
        Self {
            identity,
            client,
            memory,
            vault,
            progress,
            pace,
            backoff,
            steps: Steps::begin(),
            highest,
            renewal,
            announced,
            store,
        }
    }

    /// The same, which keeps identity and secrets in `store` for a successor, and goes on with what the vault holds.
    #[must_use]
    pub fn keeping(mut self, store: &'a mut Store) -> Self {
        store.keep_identity(&self.identity);
        self.store = Some(store);
        if let Ok(generation) = self.vault.current() {
            self.highest = Some(generation.revision());
            report_bundle(&generation, &"the file-descriptor store");
            self.announce(generation.revision(), generation.count());
        }
        self
    }

    /// Polls for ever. May be dropped at any time: what an answer brings is taken up whole or not at all.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let pause = self.turn().await;
            sleep(pause.min(self.renewal.left(now_ms()))).await;
        }
    }

    /// One request; how long to pause after it.
    pub async fn turn(&mut self) -> Duration {
        if let Some(store) = &self.store {
            store.tend();
        }
        self.renew_when_due().await;
        match self.fetch().await {
            Ok(pause) => self.succeeded(pause),
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&mut self, pause: Duration) -> Duration {
        self.backoff.reset();
        self.progress.succeeded();
        pause
    }

    fn failed(&mut self, error: &SyncError) -> Duration {
        let (arrived, message) = (Instant::now(), chain(error));
        self.progress.metrics().sync_failed(error.kind());
        let is_news = self.progress.failed(message.clone());
        if error.tells_of_a_clone() {
            self.retire(arrived);
            self.vault.lose(Loss::Cloned, clone_reason(&message));
            return AFTER_REFUSAL;
        }
        if error.ends_service() {
            self.retire(arrived);
            self.lose(&message, is_news);
            return AFTER_REFUSAL;
        }
        if error.lacks_room() {
            self.make_room(&message);
        }
        tell_waiting_launches(&self.vault, &message);
        if is_news {
            warn!(error = %message, "not synchronised: what is held is good until its lease ends");
            service_manager::status(&format!("not synchronised: {message}"));
        }
        self.backoff.next_delay()
    }

    fn lose(&mut self, message: &str, is_news: bool) {
        let reason = format!("this devbox may have no secrets any more: {message}");
        if is_news {
            error!(%reason, "secrets wiped");
            service_manager::status(&reason);
        }
        self.vault.lose(Loss::Revoked, reason);
        self.forget();
    }

    /// What is held is out of date, and may be what the new bundle lacks room for: the next attempt starts without it.
    fn make_room(&mut self, message: &str) {
        if self.held_revision().is_some() {
            warn!("what is held is wiped to make room for its successor");
            self.vault.lose(Loss::Starting, format!("the daemon makes room for new secrets: {message}"));
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some(store) = &mut self.store {
            store.forget_secrets();
        }
    }

    /// A failed renewal is told and tried again; the certificate in use is good for another third of its life.
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

    /// Proves itself with `identity` from the next request on.
    pub fn adopt(&mut self, identity: Identity) {
        self.progress.metrics().certificate_renewed();
        report_renewal(&identity);
        self.progress.identified(&identity);
        self.client = Client::new(self.client.url().clone(), identity.config());
        self.renewal = Renewal::following(identity.validity(), now_ms());
        self.identity = identity;
        if let Some(store) = &mut self.store {
            store.keep_identity(&self.identity);
        }
    }

    /// Asks once. Key, request and answer are gone when this returns.
    async fn fetch(&mut self) -> Result<Duration, SyncError> {
        if self.identity.validity().has_expired(now_ms()) {
            return Err(SyncError::Expired);
        }
        let key = BundleKey::generate();
        let held = self.held_revision();
        let asked = Asked::now(self.pace.wait().min(self.renewal.left(now_ms())));
        let reply = self.client.post(self.post(&key, held, asked.wait)).await?;
        let arrived = Instant::now();
        if reply.status.is_success() {
            self.steps.answered();
        }
        match (reply.status, held) {
            (StatusCode::OK, _) => {
                self.take_up(&key, &reply, asked, arrived)?;
                self.progress.fetched_in(asked.at.elapsed());
                Ok(AFTER_CHANGE)
            }
            (StatusCode::NO_CONTENT, Some(_)) => Ok(self.unchanged(asked)),
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

    fn post(&self, key: &BundleKey, known_revision: Option<u64>, wait: Duration) -> Post<'static> {
        let request = BundleRequest {
            hpke_public_key: BASE64.encode(key.public_key()),
            known_revision,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            continuity: self.steps.next(),
        };
        let body = serde_json::json!(request).to_string().into_bytes();
        let limit = self.memory.limit().saturating_add(OVERHEAD);
        Post { path: BUNDLE_PATH, body, authorization: None, patience: wait + GRACE, limit }
    }

    fn unchanged(&mut self, asked: Asked) -> Duration {
        self.progress.metrics().unchanged();
        let lease = asked.answered() + self.pace.max_stale;
        if self.vault.renew_lease(lease)
            && let Some(store) = &mut self.store
        {
            store.renew_lease(lease);
        }
        let is_early = asked.at.elapsed() < asked.wait / 2;
        if is_early { asked.wait.min(AFTER_HURRY) } else { Duration::ZERO }
    }

    fn take_up(
        &mut self,
        key: &BundleKey,
        reply: &Reply,
        asked: Asked,
        arrived: Instant,
    ) -> Result<(), SyncError> {
        let bundle = Bundle::parse(&reply.body)?;
        let revision = bundle.revision;
        if let Some(held) = self.highest.filter(|held| *held > revision) {
            return Err(SyncError::Rollback { held, offered: revision });
        }
        let generation = self.open(key, &bundle)?;
        self.progress.metrics().opened(arrived);
        let names = generation.count();
        let lease = asked.answered() + self.pace.max_stale;
        if let Some(store) = &mut self.store {
            store.keep_secrets(self.identity.devbox_id(), &generation, lease);
        }
        self.retire(arrived);
        self.vault.replace(generation, lease);
        self.highest = Some(revision);
        self.report_held(self.client.url());
        self.announce(revision, names);
        Ok(())
    }

    /// What is held is about to go, by the answer that came at `arrived`.
    fn retire(&self, arrived: Instant) {
        if let Ok(held) = self.vault.current() {
            held.leave(self.progress.metrics().until_wiped(arrived));
        }
    }

    fn report_held(&self, source: &dyn Display) {
        if let Ok(held) = self.vault.current() {
            report_bundle(&held, source);
        }
    }

    fn open(&self, key: &BundleKey, bundle: &Bundle<'_>) -> Result<Generation, SyncError> {
        let revision = bundle.revision;
        let count = u32::try_from(bundle.entries.len()).map_err(|_| InvalidBundle::Truncated)?;
        let context = Context { devbox_id: self.identity.devbox_id(), revision, count };
        let opener = key.opener(bundle.encapped_key, context)?;
        Generation::open(&self.memory, bundle, opener)
            .map_err(|source| SyncError::Generation { revision, source })
    }

    fn announce(&mut self, revision: u64, names: usize) {
        if !self.announced {
            service_manager::ready();
            self.announced = true;
        }
        service_manager::status(&format!("serving {names} secrets at revision {revision}"));
    }
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    boot_time: BootTime,
    /// How long it may be held.
    wait: Duration,
}

impl Asked {
    fn now(wait: Duration) -> Self {
        Self { at: Instant::now(), boot_time: BootTime::now(), wait }
    }

    /// The latest time that the answer, which is here, can be of: it may have waited unread while the machine slept.
    fn answered(self) -> BootTime {
        BootTime::now().min(self.boot_time + self.wait)
    }
}

/// What launches are told where the control plane saw this machine's identity go on elsewhere.
fn clone_reason(message: &str) -> String {
    format!(
        "another machine goes on as this devbox, and one of the two is a copy: give this one a join token of its own \
         (devbox-secretsd resume --join-token-file FILE): {message}"
    )
}

/// Before the first bundle, launches learn what keeps it away.
pub fn tell_waiting_launches(vault: &Vault, message: &str) {
    if let Holding::Without(unavailable) = vault.holding()
        && unavailable.loss == Loss::Starting
    {
        vault.lose(Loss::Starting, format!("the daemon has no secrets yet: {message}"));
    }
}
