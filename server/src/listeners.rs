//! The listeners of a configuration: bound once, and brought up to date by a reload.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::api::listener::{BodyPrivacy, LimitSource, Listener, Transport};
use crate::api::{admin, devbox, public};
use crate::config::{Config, ListenerLimits};
use crate::logs;
use crate::pki::tls::{self, PublicTls, TlsError, TlsSource};
use crate::registry::Registry;
use crate::shutdown::Shutdown;

/// Why a listener does not open or is not reloaded.
#[derive(Debug, Error)]
pub enum ListenError {
    /// TLS cannot be set up.
    #[error("the {listener} listener has no TLS")]
    Tls {
        /// `api` or `devbox`.
        listener: &'static str,
        /// The reason.
        #[source]
        source: TlsError,
    },
    /// The address is unavailable.
    #[error(
        "the {listener} listener cannot use {address}: is another process on it, does this machine have it?"
    )]
    Bind {
        /// `api`, `devbox` or `admin`.
        listener: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Where the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The public listener.
    pub api: SocketAddr,
    /// Whether it speaks TLS.
    pub api_tls: bool,
    /// The devbox listener; it speaks TLS.
    pub devbox: SocketAddr,
    /// The admin listener, if there is one.
    pub admin: Option<SocketAddr>,
}

impl Bound {
    /// The public listener's URL.
    #[must_use]
    pub fn api_url(&self) -> String {
        let scheme = if self.api_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.api)
    }

    pub(crate) fn devbox_url(&self) -> String {
        format!("https://{}", self.devbox)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "api {} devbox {}", self.api_url(), self.devbox_url())?;
        self.admin.map_or(Ok(()), |admin| write!(f, " admin http://{admin}"))
    }
}

#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) api: Listener,
    pub(crate) devbox: Listener,
    pub(crate) admin: Option<Listener>,
    pub(crate) bound: Bound,
    pub(crate) reloader: Reloader,
}

impl Listeners {
    /// Binds the listeners of `config`.
    ///
    /// # Errors
    /// [`ListenError`]: an address or a certificate cannot be used.
    pub(crate) async fn bind(
        config: &Config,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, ListenError> {
        let tls = ListenerTls::start(config, registry)?;
        let api_transport = tls.api.clone().map_or(Transport::Plain, Transport::Tls);
        let limits = LimitSources::new(config);
        let bind = async |name, address, transport, router, privacy, limits: &LimitSource| {
            bind(name, address).await.map(|(tcp, bound)| {
                let metrics = Arc::clone(registry.metrics());
                let limits = Arc::clone(limits);
                (Listener { name, tcp, transport, router, privacy, metrics, limits }, bound)
            })
        };
        let router = public::router(registry);
        let (api, api_bound) =
            bind("api", config.api.listen, api_transport, router, BodyPrivacy::Secret, &limits.api).await?;
        let router = devbox::router(registry, shutdown);
        let transport = Transport::Tls(tls.devbox.clone());
        let (devbox, devbox_bound) =
            bind("devbox", config.devbox.listen, transport, router, BodyPrivacy::Open, &limits.devbox)
                .await?;
        let admin = match config.admin {
            None => None,
            // Plain HTTP, for a loopback address: the configuration takes no other.
            Some(address) => {
                let router = admin::router(registry);
                let limits = LimitSource::default();
                Some(bind("admin", address, Transport::Plain, router, BodyPrivacy::Open, &limits).await?)
            }
        };
        let (admin, admin_bound) = admin.unzip();
        let api_tls = config.api.tls.is_some();
        let bound = Bound { api: api_bound, api_tls, devbox: devbox_bound, admin: admin_bound };
        Ok(Self { api, devbox, admin, bound, reloader: Reloader::new(config, registry, tls, limits) })
    }
}

async fn bind(listener: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source| ListenError::Bind { listener, address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let bound = tcp.local_addr().map_err(failed)?;
    Ok((tcp, bound))
}

#[derive(Debug, Clone)]
struct LimitSources {
    api: LimitSource,
    devbox: LimitSource,
}

impl LimitSources {
    fn new(config: &Config) -> Self {
        let source = |limits: &ListenerLimits| Arc::new(ArcSwap::from_pointee(limits.clone()));
        Self { api: source(&config.api.limits), devbox: source(&config.devbox.limits) }
    }
}

#[derive(Debug, Clone)]
struct ListenerTls {
    api: Option<TlsSource>,
    devbox: TlsSource,
}

impl ListenerTls {
    fn start(config: &Config, registry: &Registry) -> Result<Self, ListenError> {
        let public = config.api.tls.as_ref().map(tls::public_tls).transpose().map_err(of("api"))?;
        if let Some(end) = public.as_ref().and_then(|public| public.not_after) {
            registry.metrics().certificate_ends("api", end);
        }
        let devbox = devbox_tls(registry, config).map_err(of("devbox"))?;
        Ok(Self { api: public.map(|public| TlsSource::new(public.config)), devbox: TlsSource::new(devbox) })
    }
}

fn devbox_tls(registry: &Registry, config: &Config) -> Result<ServerConfig, TlsError> {
    let names = config.devbox.server_names.clone();
    tls::devbox_tls(registry.current_authorities(), registry.metrics(), names)
}

fn of(listener: &'static str) -> impl Fn(TlsError) -> ListenError {
    move |source| ListenError::Tls { listener, source }
}

/// Brings a running server up to date with its configuration. Open connections stay, with their TLS
/// and limits.
#[derive(Debug, Clone)]
pub(crate) struct Reloader {
    registry: Registry,
    tls: ListenerTls,
    limits: LimitSources,
    /// The configuration at the start: a difference from it needs a restart.
    started: Arc<Config>,
    /// One reload at a time.
    running: Arc<Mutex<()>>,
}

impl Reloader {
    fn new(config: &Config, registry: &Registry, tls: ListenerTls, limits: LimitSources) -> Self {
        let registry = registry.clone();
        let started = Arc::new(config.clone());
        Self { registry, tls, limits, started, running: Arc::default() }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Applies the TLS files, server names, listeners' limits, budgets and log level of `config`,
    /// all or none. Returns the settings that differ from the running server's and need a restart.
    ///
    /// # Errors
    /// [`ListenError::Tls`]; the server keeps its configuration.
    pub(crate) fn reload(&self, config: &Config) -> Result<Vec<&'static str>, ListenError> {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let files = config.api.tls.as_ref().filter(|_| self.tls.api.is_some());
        let public = files.map(tls::reloaded_public_tls).transpose().map_err(of("api"))?;
        let devbox = devbox_tls(&self.registry, config).map_err(of("devbox"))?;
        if let (Some(source), Some(PublicTls { config, not_after })) = (&self.tls.api, public) {
            source.replace(config);
            if let Some(end) = not_after {
                self.registry.metrics().certificate_ends("api", end);
            }
        }
        self.tls.devbox.replace(devbox);
        self.limits.api.store(Arc::new(config.api.limits.clone()));
        self.limits.devbox.store(Arc::new(config.devbox.limits.clone()));
        self.registry.set_limits(config.limits);
        logs::set_level(config.log.level);
        Ok(self.needs_restart(config))
    }

    fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let old = &*self.started;
        let settings = [
            ("[state]", old.state != new.state),
            ("[api] listen", old.api.listen != new.api.listen),
            ("[api] tls_certificate (TLS or none)", old.api.tls.is_some() != new.api.tls.is_some()),
            ("[devbox] listen", old.devbox.listen != new.devbox.listen),
            ("[devbox] trust_domain", old.devbox.trust_domain != new.devbox.trust_domain),
            (
                "[devbox] certificate_lifetime",
                old.devbox.certificate_lifetime != new.devbox.certificate_lifetime,
            ),
            ("[admin] listen", old.admin != new.admin),
            ("[retention]", old.retention != new.retention),
            ("[limits] bytes_in_flight", old.limits.bytes_in_flight != new.limits.bytes_in_flight),
            ("[log] format", old.log.format != new.log.format),
        ];
        settings.into_iter().filter(|(_, differs)| *differs).map(|(setting, _)| setting).collect()
    }
}
