//! The daemon's parts, wired: what `run` starts and stops.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::config::{self, Mistakes, Overrides, Server, Settings};
use crate::harden::Hardening;
use crate::identity::enroll::EnrollError;
use crate::identity::{Credentials, Identity, join};
use crate::launch::{self, LaunchState};
use crate::memory::{Loss, MemoryError, SecretMemory, Vault};
use crate::policy::Policy;
use crate::socket::{self, Audience, SocketError, SocketFile};
use crate::sync::poll::tell_waiting_launches;
use crate::sync::{Pace, Poller, Progress, guard};
use crate::telemetry::{chain, service_manager};

/// Time for launches under way when the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What launches are told before the first attempt to join has ended.
const STARTING: &str = "the daemon is starting and has no secrets yet: try again, or wait with --wait";

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Secrets would not be safe in this process's memory.
    #[error("no memory for secrets")]
    Memory(#[from] MemoryError),
    /// A socket is not there.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The thread that prepares launches does not start.
    #[error("the thread that prepares launches does not start: raise the limit of processes (LimitNPROC=)")]
    Thread(#[source] io::Error),
}

/// A daemon that is bound and serves as soon as it runs.
#[derive(Debug)]
pub struct App {
    server: Server,
    credentials: Credentials,
    memory: SecretMemory,
    vault: Arc<Vault>,
    progress: Arc<Progress>,
    launches: Arc<LaunchState>,
    admin: Arc<Admin>,
    launch_socket: (UnixListener, SocketFile),
    admin_socket: (UnixListener, SocketFile),
}

/// Changes a running daemon's rules.
#[derive(Debug, Clone)]
pub struct Reload {
    file: Option<PathBuf>,
    overrides: Overrides,
    launches: Arc<LaunchState>,
}

impl App {
    /// Makes every part and binds both sockets. Call on the runtime that will run it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        settings: Settings,
        credentials: Credentials,
        hardening: Hardening,
    ) -> Result<Self, StartError> {
        let memory = SecretMemory::probe(settings.memory.require, settings.memory.limit)?;
        let launch_socket = socket::bind(&settings.sockets.launch, Audience::Everybody)?;
        let admin_socket = socket::bind(&settings.sockets.admin, Audience::Owner)?;
        let vault = Arc::new(Vault::new(STARTING));
        let progress = Arc::new(Progress::default());
        let launches = LaunchState::new(Arc::clone(&vault), memory.clone(), settings.policy);
        let launches = Arc::new(launches.map_err(StartError::Thread)?);
        let admin = Arc::new(Admin {
            server: settings.server.url.clone(),
            vault: Arc::clone(&vault),
            memory: memory.clone(),
            progress: Arc::clone(&progress),
            hardening,
            launches: Arc::clone(&launches),
        });
        let server = settings.server;
        Ok(Self {
            server,
            credentials,
            memory,
            vault,
            progress,
            launches,
            admin,
            launch_socket,
            admin_socket,
        })
    }

    /// Where launches ask.
    #[must_use]
    pub fn launch_socket(&self) -> &Path {
        self.launch_socket.1.path()
    }

    /// Where operators ask.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        self.admin_socket.1.path()
    }

    /// A handle that reads the rules anew from `file` and `overrides`.
    #[must_use]
    pub fn reload(&self, file: Option<PathBuf>, overrides: Overrides) -> Reload {
        Reload { file, overrides, launches: Arc::clone(&self.launches) }
    }

    /// Serves until `stop`, then wipes everything and removes the sockets.
    ///
    /// # Errors
    /// [`EnrollError`] where this devbox cannot join, however long it waits.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), EnrollError> {
        self.log_start();
        let ((launch_listener, _launch_file), (admin_listener, _admin_file)) =
            (self.launch_socket, self.admin_socket);
        let (close, closing) = oneshot::channel::<()>();
        let closed = async { drop(closing.await) };
        let launches = tokio::spawn(launch::serve(launch_listener, self.launches, closed));
        tokio::spawn(admin::server::serve(admin_listener, self.admin));
        tokio::spawn(guard::watch(Arc::clone(&self.vault), Arc::clone(&self.progress)));
        tokio::spawn(service_manager::feed_watchdog());
        let vault = Arc::clone(&self.vault);
        let synchronised = synchronise(self.server, self.credentials, self.memory, self.vault, self.progress);
        let outcome = tokio::select! {
            error = synchronised => Err(error),
            () = stop => Ok(()),
        };
        service_manager::stopping();
        drop(close);
        vault.lose(Loss::Stopping, "the daemon is stopping: start it again");
        if timeout(STOP_PATIENCE, launches).await.is_err() {
            warn!("launches were still under way at the end");
        }
        outcome
    }

    fn log_start(&self) {
        info!(
            version = env!("CARGO_PKG_VERSION"),
            server = %self.server.url,
            launch_socket = %self.launch_socket().display(),
            admin_socket = %self.admin_socket().display(),
            memory = self.memory.backing().word(),
            "started"
        );
        if let Some(reason) = self.memory.fallback_reason() {
            warn!(reason = %chain(reason), "memfd_secret is not to be had: secrets are in mlock(2) pages");
        }
        if let Some(reason) = &self.admin.hardening.memory_locked.reason {
            warn!(%reason, "this process's other memory may be swapped");
        }
    }
}

/// Joins, if it must, then polls for ever. Ends only with what waiting does not cure.
async fn synchronise(
    server: Server,
    credentials: Credentials,
    memory: SecretMemory,
    vault: Arc<Vault>,
    progress: Arc<Progress>,
) -> EnrollError {
    let identity = match identify(&server, credentials, &vault, &progress).await {
        Ok(identity) => identity,
        Err(error) => return error,
    };
    let pace = Pace { poll_wait: server.poll_wait, max_stale: server.max_stale };
    let poller = Poller::new(server.url, identity, memory, vault, progress, pace);
    match poller.run().await {}
}

async fn identify(
    server: &Server,
    credentials: Credentials,
    vault: &Vault,
    progress: &Progress,
) -> Result<Identity, EnrollError> {
    let token = match credentials {
        Credentials::Ready(identity) => return Ok(identity),
        Credentials::Token(token) => token,
    };
    let failed = |error: &EnrollError| {
        let message = chain(error);
        tell_waiting_launches(vault, &message);
        service_manager::status(&format!("not joined: {message}"));
        progress.failed(message);
    };
    let started = Instant::now();
    let identity = join::join(&server.url, token, failed).await?;
    progress.joined_in(started.elapsed());
    Ok(identity)
}

impl Reload {
    /// Takes up the rules as they are now. Other settings need a restart.
    ///
    /// # Errors
    /// [`Mistakes`], after which the old rules hold.
    pub fn rules(&self) -> Result<(), Mistakes> {
        let policy: Policy = config::load(self.file.as_deref(), &self.overrides)?.policy;
        info!(rules = policy.rules().len(), "rules taken up");
        self.launches.set_policy(policy);
        Ok(())
    }

    /// Takes up the rules at every SIGHUP, for ever.
    pub async fn at_hangup(self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangups) = signal(SignalKind::hangup()) else { return pending().await };
        while hangups.recv().await.is_some() {
            if let Err(mistakes) = self.rules() {
                error!(%mistakes, "the rules are kept as they were");
            }
        }
    }
}
