//! The life of an identity: the daemon joins, polls, is quiesced, resumes. Whatever ends one part of it, by an order or because
//! this machine is a copy, the next begins with nothing: no value, no key, no connection.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use tokio::{join, select};
use tracing::{error, warn};

use super::orders::{Arriving, Order, OrderError, Wanted};
use super::poll::tell_waiting_launches;
use super::replaced::Replaced;
use super::report::{report_join, report_order};
use super::{Pace, Poller, Progress};
use crate::access::peer::Peer;
use crate::control_plane::ServerUrl;
use crate::freshness::Freshness;
use crate::identity::enroll::EnrollError;
use crate::identity::{Credentials, Identity, Source, Spent, join};
use crate::machine::Machine;
use crate::memory::{Holding, Loss, Vault};
use crate::restart::Store;
use crate::sys::SecretMemory;
use crate::telemetry::audit::{Kind, TARGET};
use crate::telemetry::{chain, service_manager};

/// Launches under way have their answers by then, and a busy service manager has closed what it stored.
const LET_GO: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

const QUIESCED: &str = "the devbox is quiesced for a snapshot: resume it (devbox-secretsd resume)";
const RESUMING: &str = "the daemon joins anew and has no secrets yet: try again, or wait with --wait";

/// Everything that a daemon's life goes on with.
#[derive(Debug)]
pub struct Life {
    /// The control plane.
    pub url: ServerUrl,
    /// Times of the poll.
    pub pace: Pace,
    /// Where the configured identity is.
    pub source: Source,
    /// For secrets.
    pub memory: SecretMemory,
    /// What is held.
    pub vault: Arc<Vault>,
    /// Whether it is current.
    pub freshness: Arc<Freshness>,
    /// How it goes.
    pub progress: Arc<Progress>,
    /// Wakes when something changes beside the files of `source`.
    pub files: Receiver<()>,
    /// Where it is.
    pub machine: Arc<Machine>,
    /// What a successor will find.
    pub store: Store,
    /// Join tokens that were tried.
    pub spent: Spent,
}

/// What ends a part of the life.
enum Turn {
    Ordered(Order),
    Cloned,
    NotJoined(EnrollError),
}

impl Life {
    /// Lives on `credentials`, then by `orders`, for ever.
    ///
    /// # Errors
    /// [`EnrollError`] where the first credentials are good for nothing, however long it waits. Later ones that are leave the
    /// daemon quiesced.
    pub async fn run(mut self, credentials: Credentials, mut orders: Arriving) -> EnrollError {
        let (mut credentials, mut is_first) = (Some(credentials), true);
        loop {
            let turn = self.part(credentials.take(), &mut orders).await;
            match turn {
                Turn::Ordered(order) => credentials = self.obey(order).await,
                Turn::Cloned => self.cloned(),
                Turn::NotJoined(error) if is_first => return error,
                Turn::NotJoined(error) => self.not_resumed(&error),
            }
            is_first = false;
        }
    }

    /// What the next part begins with.
    async fn obey(&mut self, Order { wanted, asker, end }: Order) -> Option<Credentials> {
        let (outcome, credentials) = match wanted {
            Wanted::Quiesce => (self.quiesce(asker).await, None),
            Wanted::Resume(fresh) => {
                self.resume(asker);
                (Ok(()), Some(fresh))
            }
        };
        if let Err(error) = &outcome {
            warn!(error = %chain(error), "not all that was ordered is done");
        }
        end.tell(outcome);
        credentials
    }

    /// Until its end. What it held is dropped with it: identity, key of the request, connection.
    async fn part(&mut self, credentials: Option<Credentials>, orders: &mut Arriving) -> Turn {
        let (vault, is_alive) = (Arc::clone(&self.vault), credentials.is_some());
        let alive = async {
            match credentials {
                Some(credentials) => self.live(credentials).await,
                None => pending().await,
            }
        };
        select! {
            biased;
            order = orders.next() => Turn::Ordered(order),
            () = vault.cloned(), if is_alive => Turn::Cloned,
            error = alive => Turn::NotJoined(error),
        }
    }

    /// Joins, if it must, then polls for ever.
    async fn live(&mut self, credentials: Credentials) -> EnrollError {
        let identity = match self.identify(credentials).await {
            Ok(identity) => identity,
            Err(error) => return error,
        };
        let mut replaced = Replaced::watch(&self.source, identity.devbox_id()).await;
        let (mut files, mut polls) = (self.files.clone(), self.progress.changes());
        let Self { url, pace, memory, vault, freshness, progress, store, .. } = self;
        let (vault, progress) = (Arc::clone(vault), Arc::clone(progress));
        let freshness = Arc::clone(freshness);
        let poller = Poller::new(url.clone(), identity, memory.clone(), vault, progress, *pace, freshness);
        let mut poller = poller.keeping(store);
        loop {
            let identity = select! {
                never = poller.run() => match never {},
                identity = replaced.identity(&mut files, &mut polls) => identity,
            };
            poller.adopt(identity);
        }
    }

    async fn identify(&mut self, credentials: Credentials) -> Result<Identity, EnrollError> {
        let token = match credentials {
            Credentials::Ready(identity) => {
                self.spent = identity.spent().clone();
                return Ok(identity);
            }
            Credentials::Token(token) => token,
        };
        // A token that is refused is spent as well.
        self.spent.note(&token);
        let failed = |error: &EnrollError| {
            let message = chain(error);
            tell_waiting_launches(&self.vault, &message);
            service_manager::status(&format!("not joined: {message}"));
            self.progress.metrics().sync_failed("join");
            self.progress.failed(message);
        };
        let started = Instant::now();
        let identity = join::join(&self.url, token, failed).await?;
        self.progress.joined_in(started.elapsed());
        report_join(&identity, &self.url);
        Ok(identity.having(self.spent.clone()))
    }

    /// Returns when nothing is left: launches under way and the service manager have let go.
    async fn quiesce(&mut self, asker: Peer) -> Result<(), OrderError> {
        self.vault.lose(Loss::Quiesced, QUIESCED);
        self.forget();
        service_manager::status(QUIESCED);
        let (released, closed) = (timeout(LET_GO, self.released()), timeout(LET_GO, self.store.closed()));
        let (released, closed) = join!(released, closed);
        released.map_err(|_| OrderError::Held)?;
        closed.map_err(io::Error::from).flatten().map_err(OrderError::Stored)?;
        report_order(Kind::Quiesce, asker, "quiesced: every value and every key is wiped");
        Ok(())
    }

    async fn released(&self) {
        while self.memory.bytes_locked() > 0 {
            sleep(LOOK_AGAIN).await;
        }
    }

    fn resume(&mut self, asker: Peer) {
        self.forget();
        self.machine.accept();
        self.vault.reopen(RESUMING);
        service_manager::status(RESUMING);
        report_order(Kind::Resume, asker, "resuming: the daemon joins anew");
    }

    fn cloned(&mut self) {
        self.forget();
        if let Holding::Without(lost) = self.vault.holding() {
            let reason = &*lost.reason;
            error!(target: TARGET, event = Kind::Clone.word(), reason, "every value and every key is wiped: {reason}");
            service_manager::status(reason);
        }
    }

    fn not_resumed(&mut self, error: &EnrollError) {
        self.forget();
        let reason = format!("the devbox is quiesced and could not resume: {}", chain(error));
        warn!(%reason, "not resumed");
        service_manager::status(&reason);
        self.vault.lose(Loss::Quiesced, reason);
    }

    /// A successor finds nothing, and `status` no certificate.
    fn forget(&mut self) {
        self.store.forget_everything();
        self.progress.forgotten();
    }
}
