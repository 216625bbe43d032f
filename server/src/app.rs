//! Wires the parts: state, keys, registry, and the two listeners, bound before their addresses are
//! announced.

use crate::config::{Config, RetentionConfig, StateConfig};
use crate::crypto::{MasterKey, MasterKeyError};
use crate::listeners::{Bound, ListenError, Listeners, Reloader};
use crate::registry::{Access, Action, OpenError, Registry, Settings, server_facts};
use crate::shutdown::Shutdown;
use crate::store::{Extent, Location, ServeClaim, StateError, StoreError, location};
use thiserror::Error;

/// Why the server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[source] StateError),
    /// The database is damaged.
    #[error("the database {database} cannot be served")]
    Damaged {
        /// The database's file.
        database: String,
        /// The damage.
        #[source]
        source: StoreError,
    },
    /// There is no master key.
    #[error("there is no master key to open the state with")]
    MasterKey(#[source] MasterKeyError),
    /// The state does not open.
    #[error("the state does not open")]
    Open(#[source] OpenError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Whether a missing master key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPolicy {
    /// It has to be there.
    Load,
    /// It lies in the state directory, and is made with a new state: for `dev`.
    Own,
}

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct App {
    registry: Registry,
    listeners: Listeners,
    shutdown: Shutdown,
    claim: ServeClaim,
    retention: RetentionConfig,
}

/// Opens the state that `config` names beside a running server, which keeps the right to change its
/// schema.
///
/// # Errors
/// [`StartError`]; nothing is set up.
pub(crate) async fn open_registry(config: &StateConfig, settings: Settings) -> Result<Registry, StartError> {
    let directory = location::existing(&config.directory).map_err(StartError::State)?;
    let master = MasterKey::load(&config.master_key_file).map_err(StartError::MasterKey)?;
    Registry::open(&*directory, master, settings, Access::Shared).await.map_err(StartError::Open)
}

/// Sets up the state that `config` names if there is none, and brings the schema of an older one up
/// to date.
///
/// # Errors
/// [`StartError`]; [`StateError::Served`] if a server runs.
pub(crate) async fn init(
    config: &StateConfig,
    settings: Settings,
    keys: KeyPolicy,
) -> Result<(), StartError> {
    let directory = location::new_or_existing(&config.directory).map_err(StartError::State)?;
    let claim = directory.claim().map_err(StartError::State)?;
    found(config, &*directory, settings, keys, &claim).await.map(drop)
}

async fn found(
    config: &StateConfig,
    directory: &dyn Location,
    settings: Settings,
    keys: KeyPolicy,
    claim: &ServeClaim,
) -> Result<Registry, StartError> {
    let access = Access::Founder(claim);
    let opened = match keys {
        KeyPolicy::Own => {
            Registry::open_with_own_key(directory, &config.master_key_file, settings, access).await
        }
        KeyPolicy::Load => {
            let master = MasterKey::load(&config.master_key_file).map_err(StartError::MasterKey)?;
            Registry::open(directory, master, settings, access).await
        }
    };
    opened.map_err(StartError::Open)
}

/// The registry's part of the configuration.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        trust_domain: config.devbox.trust_domain.clone(),
        certificate_lifetime: config.devbox.certificate_lifetime,
        limits: config.limits,
    }
}

impl App {
    /// Opens the state and binds both listeners.
    ///
    /// # Errors
    /// [`StartError`]; nothing was served then.
    pub async fn start(config: &Config, keys: KeyPolicy, shutdown: Shutdown) -> Result<Self, StartError> {
        let (claim, registry) = open_to_serve(&config.state, settings(config), keys).await?;
        // The start is audited only after the sockets are bound, so a failed start leaves no row.
        let listeners = Listeners::bind(config, &registry, &shutdown).await?;
        registry.note_server(Action::ServerStart, &server_facts(config)).await;
        Ok(Self { registry, listeners, shutdown, claim, retention: config.retention })
    }

    /// Where it listens.
    #[must_use]
    pub fn bound(&self) -> Bound {
        self.listeners.bound
    }

    /// Brings it up to date with a changed configuration while it serves.
    pub(crate) fn reloader(&self) -> Reloader {
        self.listeners.reloader.clone()
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Serves until the shutdown signal, and a few seconds longer for requests in flight.
    pub async fn run(self) {
        let Self { registry, listeners, shutdown, claim: _claim, retention } = self;
        let Listeners { api, devbox, admin, .. } = listeners;
        let admin = async {
            if let Some(admin) = admin {
                admin.serve(shutdown.clone()).await;
            }
        };
        let serving =
            async { tokio::join!(api.serve(shutdown.clone()), devbox.serve(shutdown.clone()), admin) };
        tokio::select! {
            _ = serving => {}
            // These two never return.
            () = registry.watch() => {}
            () = registry.retain(&retention) => {}
        }
        // The listeners have drained, so this is the last row of the run.
        registry.note_server(Action::ServerStop, "stopped by a signal").await;
        registry.checkpoint().await;
    }
}

/// Takes the right to serve a state, checks it for damage, and opens it. Only `dev` creates a
/// state: if a volume is not mounted, `serve` would otherwise serve an empty state.
async fn open_to_serve(
    config: &StateConfig,
    settings: Settings,
    keys: KeyPolicy,
) -> Result<(ServeClaim, Registry), StartError> {
    let directory = match keys {
        KeyPolicy::Own => location::new_or_existing(&config.directory),
        KeyPolicy::Load => location::existing(&config.directory),
    };
    let directory = directory.map_err(StartError::State)?;
    // The claim comes first: two servers on one state would hold separate sessions and rates.
    let claim = directory.claim().map_err(StartError::State)?;
    look_over(&*directory).await?;
    let registry = match keys {
        KeyPolicy::Own => found(config, &*directory, settings, keys, &claim).await?,
        KeyPolicy::Load => {
            let master = MasterKey::load(&config.master_key_file).map_err(StartError::MasterKey)?;
            let opened = Registry::open(&*directory, master, settings, Access::Owner(&claim)).await;
            opened.map_err(StartError::Open)?
        }
    };
    Ok((claim, registry))
}

/// Bounded in time, whatever the size of the file: `check --deep` checks all of it.
async fn look_over(directory: &dyn Location) -> Result<(), StartError> {
    if !directory.has_state() {
        return Ok(());
    }
    match directory.check_for_start().await {
        Ok(Extent::Whole) => Ok(()),
        Ok(Extent::Part) => {
            tracing::info!(
                "the database is too large to be checked whole at the start: run `check --deep` from time to time"
            );
            Ok(())
        }
        Err(source) => Err(StartError::Damaged { database: directory.database_name(), source }),
    }
}
