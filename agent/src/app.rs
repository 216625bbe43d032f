//! Wires the daemon's parts, starts and stops them.

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
use crate::access::policy::Policy;
use crate::access::policy::credentials::CredentialRules;
use crate::config::{self, Settings};
use crate::control_plane::ServerUrl;
use crate::freshness::Freshness;
use crate::harden::{self, Hardening, Reach};
use crate::identity::enroll::EnrollError;
use crate::identity::{self, InitialIdentity, InitialIdentityError, TriedTokens};
use crate::local_api::admin::{self, Admin};
use crate::local_api::credentials::{self, UnitCredentials as Units};
use crate::local_api::launch::{self, LaunchState};
use crate::local_api::reload::{self, Reload};
use crate::machine::Machine;
use crate::memory::{Loss, Vault};
use crate::metrics::{Metrics, Reasons};
use crate::restart::{self, Kept, KeptSecrets, Store};
use crate::socket::{self, Audience, SocketError, SocketFile};
use crate::status::Sources;
use crate::sync::{CommandQueue, Commands, Lifecycle, PollTimes, Progress, SyncError, expiry};
use crate::sys::{Alarm, FileEvents, Inherited, MemoryError, SecretMemory, now_ms};
use crate::telemetry::{chain, service_manager, stderr};

/// Time for launches under way when the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Where the service manager listens for units, by its unit file; for messages.
const UNITS_SOCKET: &str = "/run/devbox-secrets/credentials.sock";

/// The reason that launches get until the first attempt to join has ended.
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
    /// Too few descriptors for launches.
    #[error(transparent)]
    Descriptors(#[from] harden::FewDescriptors),
    /// Memory cannot be locked.
    #[error("no memory for secrets")]
    Memory(#[from] MemoryError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The descriptors that the service manager passed are unusable.
    #[error(
        "the descriptors that the service manager passed cannot be taken: is LISTEN_FDS of this process?"
    )]
    Inherited(#[source] io::Error),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] InitialIdentityError),
    /// A protection is unavailable although `hardening.mode` is strict.
    #[error(transparent)]
    Hardening(#[from] harden::Missing),
    /// The thread that prepares launches, or the log's, does not start.
    #[error("a thread does not start: raise the limit of processes (LimitNPROC=)")]
    Thread(#[source] io::Error),
    /// A timer cannot be made.
    #[error("a timer cannot be made: raise the limit of open files (LimitNOFILE=)")]
    Timer(#[source] io::Error),
}

/// The state that the daemon starts with: its memory, the descriptors from the service manager, and a predecessor's state.
#[derive(Debug)]
pub struct Beginning {
    memory: SecretMemory,
    passed: Inherited,
    store: Store,
    identity: InitialIdentity,
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
        let mut passed = Inherited::take().map_err(StartError::Inherited)?;
        let images = passed.all(restart::is_image);
        let (mut store, mut kept) = Store::open(&memory, &settings.server.url, images);
        let identity = identity::read_or_keep(&settings.identity, kept.identity.take())?;
        store.keep_only(&mut kept, &identity);
        Ok(Self { memory, passed, store, identity, kept })
    }
}

/// A socket and its file, which is removed when this is dropped.
type Listener = (UnixListener, SocketFile);

#[derive(Debug)]
struct Sockets {
    launch: Listener,
    admin: Listener,
    units: Option<Listener>,
}

impl Sockets {
    /// Those that the service manager passed, else bound at the configured paths.
    fn open(passed: &mut Inherited, paths: &config::Sockets) -> Result<Self, SocketError> {
        Ok(Self {
            launch: listen(passed, "launch", &paths.launch, Audience::Everybody)?,
            admin: listen(passed, "admin", &paths.admin, Audience::Owner)?,
            units: listen_for_units(passed, paths.credentials.as_deref())?,
        })
    }

    fn own_files(&self) -> Vec<&Path> {
        let files = [Some(&self.launch.1), Some(&self.admin.1), self.units.as_ref().map(|socket| &socket.1)];
        files.into_iter().flatten().filter(|file| file.is_ours()).map(SocketFile::path).collect()
    }
}

struct Shared {
    machine: Arc<Machine>,
    vault: Arc<Vault>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
}

impl Shared {
    fn new(machine: Arc<Machine>, kept: Option<KeptSecrets>) -> Self {
        let vault = Arc::new(Vault::new(STARTING).on(Arc::clone(&machine)));
        if let Some(secrets) = kept {
            vault.replace(secrets.generation, secrets.lease);
        }
        let metrics = Arc::new(Metrics::new(REASONS));
        let progress = Arc::new(Progress::counted_in(Arc::clone(&metrics)));
        Self { machine, vault, freshness: Arc::new(Freshness::new()), metrics, progress }
    }

    fn launches(
        &self,
        memory: &SecretMemory,
        policy: Policy,
        examiner: Examiner,
    ) -> io::Result<Arc<LaunchState>> {
        let launches = LaunchState::new(Arc::clone(&self.vault), memory.clone(), policy)?;
        let launches = launches.examined_by(examiner).counted_in(Arc::clone(&self.metrics));
        Ok(Arc::new(launches.checked_by(Arc::clone(&self.freshness))))
    }

    fn units(&self, rules: CredentialRules) -> Arc<Units> {
        let units = Units::new(Arc::clone(&self.vault), rules).counted_in(Arc::clone(&self.metrics));
        Arc::new(units.checked_by(Arc::clone(&self.freshness)))
    }

    fn status(
        &self,
        server: &ServerUrl,
        memory: &SecretMemory,
        hardening: Hardening,
        store: &Store,
    ) -> Sources {
        Sources {
            server: server.clone(),
            vault: Arc::clone(&self.vault),
            memory: memory.clone(),
            progress: Arc::clone(&self.progress),
            hardening,
            stored: store.view(),
            machine: Arc::clone(&self.machine),
            started_ms: now_ms(),
        }
    }
}

/// A daemon that is bound and serves as soon as it runs.
#[derive(Debug)]
pub struct App {
    lifecycle: Lifecycle,
    alarm: Alarm,
    files: FileEvents,
    identity: InitialIdentity,
    commands: CommandQueue,
    launches: Arc<LaunchState>,
    admin: Arc<Admin>,
    sockets: Sockets,
    units: Arc<Units>,
}

impl App {
    /// Makes every part and binds its sockets, or takes those that the service manager passed. Call on the runtime that will
    /// run it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        settings: Settings,
        sources: reload::Sources,
        beginning: Beginning,
        hardening: Hardening,
    ) -> Result<Self, StartError> {
        let Beginning { memory, mut passed, store, identity, kept } = beginning;
        // Bound first, because confinement and dropped capabilities would forbid it.
        let sockets = Sockets::open(&mut passed, &settings.sockets)?;
        let machine = Arc::new(Machine::this());
        // The process cannot set watches or make timers once it is confined.
        let files = FileEvents::of(&[&settings.identity.files()[..], &[machine.id_file()]].concat());
        let alarm = Alarm::new().map_err(StartError::Timer)?;
        let (hardening, examiner) = harden(hardening, &settings, &sockets.own_files(), &memory)?;
        // Threads start after the last step of the hardening, which holds for the threads of its caller only.
        stderr::start().map_err(StartError::Thread)?;
        let shared = Shared::new(machine, kept.secrets);
        let launches = shared.launches(&memory, settings.policy, examiner).map_err(StartError::Thread)?;
        let units = shared.units(settings.credential_rules);
        let (sender, commands) = Commands::new(Arc::clone(&shared.vault), settings.identity.clone());
        let admin = Arc::new(Admin {
            status: shared.status(&settings.server.url, &memory, hardening, &store),
            launches: Arc::clone(&launches),
            commands: sender,
            reload: Reload::new(sources, Arc::clone(&launches), Arc::clone(&units)),
        });
        let server = settings.server;
        let lifecycle = Lifecycle {
            url: server.url,
            times: PollTimes { poll_wait: server.poll_wait, max_stale: server.max_stale },
            source: settings.identity,
            memory,
            vault: shared.vault,
            freshness: shared.freshness,
            progress: shared.progress,
            files: files.subscribe(),
            machine: shared.machine,
            store,
            tried: TriedTokens::default(),
        };
        Ok(Self { lifecycle, alarm, files, identity, commands, launches, admin, sockets, units })
    }

    #[must_use]
    pub(crate) fn launch_socket(&self) -> &Path {
        self.sockets.launch.1.path()
    }

    #[must_use]
    pub(crate) fn admin_socket(&self) -> &Path {
        self.sockets.admin.1.path()
    }

    /// A handle that puts changed rules into force.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.admin.reload.clone()
    }

    /// Serves until `stop`, then wipes everything and removes the sockets.
    ///
    /// # Errors
    /// [`EnrollError`] if this devbox cannot ever join.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), EnrollError> {
        self.log_start();
        // The files are removed when their handles are dropped: at the end.
        let (launch_listener, _launch_file) = self.sockets.launch;
        let (admin_listener, _admin_file) = self.sockets.admin;
        let (units_listener, _units_file) = self.sockets.units.unzip();
        let (close, closing) = watch::channel(());
        let closed =
            |mut closing: watch::Receiver<()>| async move { while closing.changed().await.is_ok() {} };
        let launches = tokio::spawn(launch::serve(launch_listener, self.launches, closed(closing.clone())));
        tokio::spawn(admin::server::serve(admin_listener, self.admin));
        let units = units_listener.map(|listener| tokio::spawn(self.units.serve(listener, closed(closing))));
        let vault = Arc::clone(&self.lifecycle.vault);
        tokio::spawn(expiry::watch(Arc::clone(&vault), Arc::clone(&self.lifecycle.progress), self.alarm));
        let log = self.lifecycle.machine.log();
        tokio::spawn(expiry::watch_machine(Arc::clone(&vault), log, self.files.subscribe()));
        tokio::spawn(self.files.run());
        tokio::spawn(service_manager::feed_watchdog());
        let outcome = tokio::select! {
            error = self.lifecycle.run(self.identity, self.commands) => Err(error),
            () = stop => Ok(()),
        };
        // Before the wait for launches, during which `systemctl status` shows a stopping daemon.
        service_manager::stopping();
        drop(close);
        // Wiped before the wait: launches in progress keep their pages, and no new one gets any.
        vault.lose(Loss::Stopping, "the daemon is stopping: start it again");
        let finished = async {
            // A task that panicked has finished as well.
            let _ = launches.await;
            if let Some(units) = units {
                let _ = units.await;
            }
        };
        if timeout(STOP_PATIENCE, finished).await.is_err() {
            warn!("stopped while launches or credentials were in progress");
        }
        outcome
    }

    fn log_start(&self) {
        info!(
            version = env!("CARGO_PKG_VERSION"),
            server = %self.lifecycle.url,
            launch_socket = %self.launch_socket().display(),
            admin_socket = %self.admin_socket().display(),
            memory = self.lifecycle.memory.backing().word(),
            "started"
        );
        if let Some(reason) = self.lifecycle.memory.fallback_reason() {
            warn!(reason = %chain(reason), "memfd_secret is unavailable; using mlock(2) pages");
        }
        for (protection, reason) in self.admin.status.hardening.missing() {
            warn!(protection, reason, "hardening is incomplete");
        }
    }
}

/// Confines the process. If a rule names a program, the thread that examines programs starts before that: no process in a
/// Landlock domain can see the program of one outside (landlock(7), "Ptrace restrictions").
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

fn listen(
    passed: &mut Inherited,
    name: &str,
    path: &Path,
    audience: Audience,
) -> Result<(UnixListener, SocketFile), SocketError> {
    passed.named(name).map_or_else(|| socket::bind(path, audience), |passed| socket::inherit(passed, path))
}

/// The socket on which systemd asks for units' credentials: passed by it, or bound if the configuration names a path.
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
