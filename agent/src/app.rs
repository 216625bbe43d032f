//! The daemon's parts, wired: what `run` starts and stops.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::access::peer::{Cgroups, Examiner};
use crate::admin::{self, Admin};
use crate::config::{self, Settings};
use crate::freshness::Freshness;
use crate::harden::{self, Hardening, Reach};
use crate::identity::enroll::EnrollError;
use crate::identity::{self, Credentials, CredentialsError, Spent};
use crate::local_api::credentials;
use crate::local_api::launch::{self, LaunchState};
use crate::machine::Machine;
use crate::memory::{Loss, Vault};
use crate::metrics::{Metrics, Reasons};
use crate::reload::{Reload, Sources};
use crate::restart::{self, Kept, Store};
use crate::socket::{self, Audience, SocketError, SocketFile};
use crate::status;
use crate::sync::orders::Arriving;
use crate::sync::{Life, Orders, Pace, Progress, SyncError, guard};
use crate::sys::{Alarm, FileEvents, Inherited, MemoryError, SecretMemory, now_ms};
use crate::telemetry::{chain, service_manager, stderr};

/// Time for launches under way when the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Where the service manager listens for units, by its unit file; for messages.
const UNITS_SOCKET: &str = "/run/devbox-secrets/credentials.sock";

/// What launches are told before the first attempt to join has ended.
const STARTING: &str = "the daemon is starting and has no secrets yet: try again, or wait with --wait";

/// The words of the parts that count, for counters that are there from the start.
const REASONS: Reasons = Reasons {
    withdrawals: &launch::WITHDRAWALS,
    inline: &launch::INLINE_REASONS,
    credential_refusals: &credentials::REFUSALS,
    sync_failures: &SyncError::KINDS,
};

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no room for launches.
    #[error(transparent)]
    Descriptors(#[from] harden::FewDescriptors),
    /// Secrets would not be safe in this process's memory.
    #[error("no memory for secrets")]
    Memory(#[from] MemoryError),
    /// A socket is not there.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What the service manager passed cannot be used.
    #[error(
        "the descriptors that the service manager passed cannot be taken: is LISTEN_FDS of this process?"
    )]
    Inherited(#[source] io::Error),
    /// No identity.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A protection is missing that has to be there.
    #[error(transparent)]
    Hardening(#[from] harden::Missing),
    /// The thread that prepares launches, or the log's, does not start.
    #[error("a thread does not start: raise the limit of processes (LimitNPROC=)")]
    Thread(#[source] io::Error),
    /// There is no timer.
    #[error("a timer cannot be made: raise the limit of open files (LimitNOFILE=)")]
    Timer(#[source] io::Error),
}

/// What the daemon begins with: its memory, what the service manager passed, and what a predecessor left.
#[derive(Debug)]
pub struct Beginning {
    memory: SecretMemory,
    sockets: Inherited,
    store: Store,
    credentials: Credentials,
    kept: Kept,
}

impl Beginning {
    /// Takes all of it. Blocks: call before the runtime runs.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn take(settings: &Settings) -> Result<Self, StartError> {
        harden::enough_descriptors()?;
        let memory = SecretMemory::probe(settings.memory.require, settings.memory.limit)?;
        let mut sockets = Inherited::take().map_err(StartError::Inherited)?;
        let left = sockets.all(restart::is_image);
        let (mut store, mut kept) = Store::open(&memory, &settings.server.url, left);
        let credentials = identity::read_or_keep(&settings.identity, kept.identity.take())?;
        store.keep_only(&mut kept, &credentials);
        Ok(Self { memory, sockets, store, credentials, kept })
    }
}

/// A daemon that is bound and serves as soon as it runs.
#[derive(Debug)]
pub struct App {
    life: Life,
    alarm: Alarm,
    files: FileEvents,
    credentials: Credentials,
    orders: Arriving,
    launches: Arc<LaunchState>,
    admin: Arc<Admin>,
    launch_socket: (UnixListener, SocketFile),
    admin_socket: (UnixListener, SocketFile),
    units: Arc<credentials::Credentials>,
    units_socket: Option<(UnixListener, SocketFile)>,
}

impl App {
    /// Makes every part and binds its sockets, or takes those that the service manager passed. Call on the runtime that will run it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        settings: Settings,
        sources: Sources,
        beginning: Beginning,
        hardening: Hardening,
    ) -> Result<Self, StartError> {
        let Beginning { memory, mut sockets, store, credentials, kept } = beginning;
        let paths = &settings.sockets;
        let launch_socket = listen(&mut sockets, "launch", &paths.launch, Audience::Everybody)?;
        let admin_socket = listen(&mut sockets, "admin", &paths.admin, Audience::Owner)?;
        let units_socket = listen_for_units(&mut sockets, paths.credentials.as_deref())?;
        let files =
            [Some(&launch_socket.1), Some(&admin_socket.1), units_socket.as_ref().map(|socket| &socket.1)];
        let ours: Vec<&Path> =
            files.into_iter().flatten().filter(|file| file.is_ours()).map(SocketFile::path).collect();
        let machine = Arc::new(Machine::this());
        let files = FileEvents::of(&[&settings.identity.files()[..], &[machine.id_file()]].concat());
        let alarm = Alarm::new().map_err(StartError::Timer)?;
        let (hardening, examiner) = harden(hardening, &settings, &ours, &memory)?;
        stderr::start().map_err(StartError::Thread)?;
        let vault = Arc::new(Vault::new(STARTING).on(Arc::clone(&machine)));
        if let Some(secrets) = kept.secrets {
            vault.replace(secrets.generation, secrets.lease);
        }
        let metrics = Arc::new(Metrics::new(REASONS));
        let freshness = Arc::new(Freshness::new());
        let units = credentials::Credentials::new(Arc::clone(&vault), settings.credential_rules);
        let units = Arc::new(units.counted_in(Arc::clone(&metrics)).checked_by(Arc::clone(&freshness)));
        let progress = Arc::new(Progress::counted_in(Arc::clone(&metrics)));
        let launches = LaunchState::new(Arc::clone(&vault), memory.clone(), settings.policy);
        let launches = launches.map_err(StartError::Thread)?.examined_by(examiner).counted_in(metrics);
        let launches = Arc::new(launches.checked_by(Arc::clone(&freshness)));
        let (life, orders) = Orders::new(Arc::clone(&vault), settings.identity.clone());
        let admin = Arc::new(Admin {
            status: status::Sources {
                server: settings.server.url.clone(),
                vault: Arc::clone(&vault),
                memory: memory.clone(),
                progress: Arc::clone(&progress),
                hardening,
                stored: store.view(),
                machine: Arc::clone(&machine),
                started_ms: now_ms(),
            },
            launches: Arc::clone(&launches),
            life,
            reload: Reload::new(sources, Arc::clone(&launches), Arc::clone(&units)),
        });
        let server = settings.server;
        let pace = Pace { poll_wait: server.poll_wait, max_stale: server.max_stale };
        let (url, source) = (server.url, settings.identity);
        let wakes = files.subscribe();
        let life = Life {
            url,
            pace,
            source,
            memory,
            vault,
            freshness,
            progress,
            files: wakes,
            machine,
            store,
            spent: Spent::default(),
        };
        Ok(Self {
            life,
            alarm,
            files,
            credentials,
            orders,
            launches,
            admin,
            launch_socket,
            admin_socket,
            units,
            units_socket,
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

    /// A handle that takes up changed rules.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.admin.reload.clone()
    }

    /// Serves until `stop`, then wipes everything and removes the sockets.
    ///
    /// # Errors
    /// [`EnrollError`] where this devbox cannot join, however long it waits.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), EnrollError> {
        self.log_start();
        let ((launch_listener, _launch_file), (admin_listener, _admin_file)) =
            (self.launch_socket, self.admin_socket);
        // The file is removed when its handle is dropped: at the end.
        let (units_listener, _units_file) = self.units_socket.unzip();
        let (close, closing) = watch::channel(());
        let closed =
            |mut closing: watch::Receiver<()>| async move { while closing.changed().await.is_ok() {} };
        let launches = tokio::spawn(launch::serve(launch_listener, self.launches, closed(closing.clone())));
        tokio::spawn(admin::server::serve(admin_listener, self.admin));
        let units = units_listener.map(|listener| tokio::spawn(self.units.serve(listener, closed(closing))));
        let vault = Arc::clone(&self.life.vault);
        tokio::spawn(guard::watch(Arc::clone(&vault), Arc::clone(&self.life.progress), self.alarm));
        let log = self.life.machine.log();
        tokio::spawn(guard::watch_machine(Arc::clone(&vault), log, self.files.subscribe()));
        tokio::spawn(self.files.run());
        tokio::spawn(service_manager::feed_watchdog());
        let outcome = tokio::select! {
            error = self.life.run(self.credentials, self.orders) => Err(error),
            () = stop => Ok(()),
        };
        service_manager::stopping();
        drop(close);
        vault.lose(Loss::Stopping, "the daemon is stopping: start it again");
        let ended = async {
            // A task that panicked has ended as well.
            let _ = launches.await;
            if let Some(units) = units {
                let _ = units.await;
            }
        };
        if timeout(STOP_PATIENCE, ended).await.is_err() {
            warn!("launches or credentials were still under way at the end");
        }
        outcome
    }

    fn log_start(&self) {
        info!(
            version = env!("CARGO_PKG_VERSION"),
            server = %self.life.url,
            launch_socket = %self.launch_socket().display(),
            admin_socket = %self.admin_socket().display(),
            memory = self.life.memory.backing().word(),
            "started"
        );
        if let Some(reason) = self.life.memory.fallback_reason() {
            warn!(reason = %chain(reason), "memfd_secret is not to be had: secrets are in mlock(2) pages");
        }
        for (protection, reason) in self.admin.status.hardening.missing() {
            warn!(protection, reason, "hardening is not complete");
        }
    }
}

/// Closes the process, but for the thread that looks at programs, where a rule names one: it starts outside.
fn harden(
    hardening: Hardening,
    settings: &Settings,
    sockets: &[&Path],
    memory: &SecretMemory,
) -> Result<(Hardening, Examiner), harden::Missing> {
    let sees_programs = settings.policy.names_executables();
    let hardening = hardening.drop_privileges(sees_programs);
    let examiner = Examiner::new(Cgroups::of_this_machine());
    if sees_programs {
        examiner.prepare();
    }
    let config = settings.file.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE));
    let identity = settings.identity.files();
    let reach = Reach { config, identity: &identity, sockets, server: &settings.server.url };
    Ok((hardening.confine(&reach, memory, settings.hardening)?, examiner))
}

/// The socket that the service manager passed under `name`, else one bound at `path`.
fn listen(
    passed: &mut Inherited,
    name: &str,
    path: &Path,
    audience: Audience,
) -> Result<(UnixListener, SocketFile), SocketError> {
    passed.named(name).map_or_else(|| socket::bind(path, audience), |passed| socket::inherit(passed, path))
}

/// Where systemd asks for units: passed by it, or bound where the configuration says so.
fn listen_for_units(
    passed: &mut Inherited,
    path: Option<&Path>,
) -> Result<Option<(UnixListener, SocketFile)>, SocketError> {
    match (passed.named("credentials"), path) {
        (Some(passed), _) => socket::inherit(passed, Path::new(UNITS_SOCKET)).map(Some),
        (None, Some(path)) => socket::bind(path, Audience::Owner).map(Some),
        (None, None) => Ok(None),
    }
}
