//! The lifecycle of the daemon's identity: it joins, polls, is quiesced, resumes.
//!
//! Each phase is one future that owns the identity, the key of the request and the connection. A command, or the discovery that
//! this machine is a copy, drops the future and thereby wipes all three; the next phase starts without any of them.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use tokio::{join, select};
use tracing::warn;

use super::certificate_files::CertificateFiles;
use super::commands::{Action, Command, CommandError, CommandQueue};
use super::poll::inform_waiting_launches;
use super::report::{report_command, report_join};
use super::{PollTimes, Poller, Progress};
use crate::access::peer::Peer;
use crate::control_plane::ServerUrl;
use crate::freshness::Freshness;
use crate::identity::enroll::EnrollError;
use crate::identity::{Identity, InitialIdentity, Source, TriedTokens, join};
use crate::machine::Machine;
use crate::memory::{Holding, Loss, Vault};
use crate::restart::Store;
use crate::sys::SecretMemory;
use crate::telemetry::audit::{Kind, audit};
use crate::telemetry::{chain, service_manager};

/// Time for launches in progress to finish, and for a busy service manager to close what it stored.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(6);
/// Between two looks at the locked memory while quiescing: releases by launches notify nobody.
const RELEASE_POLL: Duration = Duration::from_millis(2);

const QUIESCED: &str = "the devbox is quiesced for a snapshot: resume it (devbox-secretsd resume)";
const RESUMING: &str = "the daemon joins anew and has no secrets yet: try again, or wait with --wait";

#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub url: ServerUrl,
    pub times: PollTimes,
    pub source: Source,
    pub memory: SecretMemory,
    pub vault: Arc<Vault>,
    pub freshness: Arc<Freshness>,
    pub progress: Arc<Progress>,
    /// Wakes when a directory of `source`'s files changes.
    pub files: Receiver<()>,
    pub machine: Arc<Machine>,
    pub store: Store,
    pub tried: TriedTokens,
}

enum PhaseEnd {
    Commanded(Command),
    Cloned,
    NotJoined(EnrollError),
}

impl Lifecycle {
    /// Runs phases for ever: the first with `start`, the others by `commands`.
    ///
    /// # Errors
    /// [`EnrollError`] if the first phase cannot ever join. A later one that cannot leaves the daemon quiesced.
    pub(crate) async fn run(mut self, start: InitialIdentity, mut commands: CommandQueue) -> EnrollError {
        let mut start = Some(start);
        let mut is_first = true;
        loop {
            let end = self.phase(start.take(), &mut commands).await;
            match end {
                PhaseEnd::Commanded(command) => start = self.carry_out(command).await,
                PhaseEnd::Cloned => self.cloned(),
                // At the start the daemon exits with the error; later it stays, so that an
                // operator can resume it.
                PhaseEnd::NotJoined(error) if is_first => return error,
                PhaseEnd::NotJoined(error) => self.not_resumed(&error),
            }
            is_first = false;
        }
    }

    /// Returns the identity that the next phase starts with; `None` if it is quiesced.
    async fn carry_out(&mut self, Command { action, asker, reply }: Command) -> Option<InitialIdentity> {
        let (outcome, start) = match action {
            Action::Quiesce => (self.quiesce(asker).await, None),
            Action::Resume(fresh) => {
                self.resume(asker);
                (Ok(()), Some(fresh))
            }
        };
        if let Err(error) = &outcome {
            warn!(error = %chain(error), "a command is not fully carried out");
        }
        reply.send(outcome);
        start
    }

    /// Runs one phase. Its identity, request key and connection are dropped when this returns.
    async fn phase(&mut self, start: Option<InitialIdentity>, commands: &mut CommandQueue) -> PhaseEnd {
        let vault = Arc::clone(&self.vault);
        let is_serving = start.is_some();
        let serving = async {
            match start {
                Some(start) => self.serve(start).await,
                None => pending().await,
            }
        };
        select! {
            // Commands first: an operator's quiesce is not delayed by a join that fails again and again.
            biased;
            command = commands.next() => PhaseEnd::Commanded(command),
            () = vault.cloned(), if is_serving => PhaseEnd::Cloned,
            error = serving => PhaseEnd::NotJoined(error),
        }
    }

    /// Joins, if it must, then polls for ever.
    async fn serve(&mut self, start: InitialIdentity) -> EnrollError {
        let identity = match self.identify(start).await {
            Ok(identity) => identity,
            Err(error) => return error,
        };
        let mut certificate_files = CertificateFiles::watch(&self.source, identity.devbox_id()).await;
        let mut files = self.files.clone();
        let mut polls = self.progress.changes();
        let Self { url, times, memory, vault, freshness, progress, store, .. } = self;
        let vault = Arc::clone(vault);
        let progress = Arc::clone(progress);
        let freshness = Arc::clone(freshness);
        let poller = Poller::new(url.clone(), identity, memory.clone(), vault, progress, *times, freshness);
        let mut poller = poller.keeping(store);
        loop {
            let identity = select! {
                never = poller.run() => match never {},
                identity = certificate_files.identity(&mut files, &mut polls) => identity,
            };
            poller.adopt(identity);
        }
    }

    async fn identify(&mut self, start: InitialIdentity) -> Result<Identity, EnrollError> {
        let token = match start {
            InitialIdentity::Ready(identity) => {
                self.tried = identity.tried_tokens().clone();
                return Ok(identity);
            }
            InitialIdentity::Token(token) => token,
        };
        // Before the attempt: a token that is refused counts as tried, too.
        self.tried.note(&token);
        let failed = |error: &EnrollError| {
            let message = chain(error);
            inform_waiting_launches(&self.vault, &message);
            service_manager::status(&format!("not joined: {message}"));
            self.progress.metrics().sync_failed("join");
            self.progress.failed(message);
        };
        let started = Instant::now();
        let identity = join::join(&self.url, token, failed).await?;
        self.progress.joined_in(started.elapsed());
        report_join(&identity, &self.url);
        Ok(identity.with_tried_tokens(self.tried.clone()))
    }

    /// Returns once every copy is wiped, those of launches in progress and of the service manager's store included.
    async fn quiesce(&mut self, asker: Peer) -> Result<(), CommandError> {
        // The vault first: from here on no launch gets a value, however long the rest takes.
        self.vault.lose(Loss::Quiesced, QUIESCED);
        self.forget();
        service_manager::status(QUIESCED);
        let released = timeout(QUIESCE_TIMEOUT, self.released());
        let (released, closed) = join!(released, timeout(QUIESCE_TIMEOUT, self.store.closed()));
        released.map_err(|_| CommandError::LaunchesInProgress)?;
        closed.map_err(io::Error::from).flatten().map_err(CommandError::Stored)?;
        report_command(Kind::Quiesce, asker, "quiesced: every value and every key is wiped");
        Ok(())
    }

    async fn released(&self) {
        while self.memory.bytes_locked() > 0 {
            sleep(RELEASE_POLL).await;
        }
    }

    fn resume(&mut self, asker: Peer) {
        self.forget();
        // Accepted before the vault opens, which would otherwise be lost to the same change again.
        self.machine.accept();
        self.vault.reopen(RESUMING);
        service_manager::status(RESUMING);
        report_command(Kind::Resume, asker, "resuming: the daemon joins anew");
    }

    fn cloned(&mut self) {
        self.forget();
        if let Holding::Without(lost) = self.vault.holding() {
            let reason = &*lost.reason;
            audit!(error, Kind::Clone, reason, "every value and every key is wiped: {reason}");
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

    /// Removes the state for a successor, and the certificate from `status`.
    fn forget(&mut self) {
        self.store.forget_everything();
        self.progress.forgotten();
    }
}
