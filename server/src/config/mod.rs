//! The configuration file: parsed once into types, with every mistake reported at once.
//!
//! ```toml
//! [state]
//! directory = "/var/lib/devbox-secrets"
//! # Without it: the systemd credential `master-key`.
//! master_key_file = "/etc/devbox-secrets/master.key"
//!
//! [api]
//! listen = "127.0.0.1:8080"
//! # Needed unless `listen` is a loopback address.
//! tls_certificate = "/etc/devbox-secrets/api.pem"
//! tls_key = "/etc/devbox-secrets/api.key"
//! # Budgets of a listener; [devbox] has them too, but for the last, and max_connections_per_certificate.
//! max_connections = 8_192
//! max_connections_per_address = 512
//! max_failures_per_second_per_address = 10
//! max_requests = 1_024
//! max_body_bytes = 268_435_456
//! exempt_addresses = ["loopback"]
//! max_requests_per_account = 128
//!
//! [devbox]
//! listen = "0.0.0.0:8443"
//! # Names and addresses by which devboxes reach this listener.
//! server_names = ["secrets.example.com"]
//! trust_domain = "devbox-secrets.internal"
//! certificate_lifetime = "24h"
//!
//! # Optional: /metrics, /healthz and /readyz, plain HTTP on a loopback address only.
//! [admin]
//! listen = "127.0.0.1:9464"
//!
//! # How long ended things are kept; "forever" for the audit keeps it until `audit prune`.
//! [retention]
//! audit = "400d"
//! certificates = "7d"
//! join_tokens = "7d"
//! devboxes = "30d"
//!
//! [log]
//! format = "auto"
//! level = "info"
//!
//! # Optional: budgets of accounts, devboxes and tokens; docs/operations.md lists all of them.
//! [limits]
//! secrets_per_account = 10000
//! bundle_bytes = 8388608
//! ```

mod limits;
mod listeners;
mod retention;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devbox_secrets_common::config::{Document, Section, time};
use rustls::pki_types::ServerName;
use thiserror::Error;

use crate::logs::{LogConfig, parse_level};

pub use devbox_secrets_common::config::Mistakes;
pub use limits::{Limits, Rate};
pub use listeners::{Exempt, ListenerLimits};
pub(crate) use retention::RetentionConfig;

/// The trust domain if the configuration has none.
pub(crate) const DEFAULT_TRUST_DOMAIN: &str = "devbox-secrets.internal";
/// A devbox certificate's lifetime if the configuration has none.
pub(crate) const DEFAULT_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// File of the master key in a state directory that `dev` made.
pub(crate) const DEV_MASTER_KEY: &str = "master.key";

const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(300)..=Duration::from_secs(30 * 86_400);

/// The server's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Paths of the data and the master key.
    pub state: StateConfig,
    /// The public listener.
    pub api: ApiConfig,
    /// The devbox listener.
    pub devbox: DevboxConfig,
    /// The listener for monitoring, on a loopback address, if there is one.
    pub admin: Option<SocketAddr>,
    /// How long ended things are kept.
    pub retention: RetentionConfig,
    /// Logs.
    pub log: LogConfig,
    /// Budgets of accounts, devboxes and tokens.
    pub limits: Limits,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConfig {
    /// The database's directory, 0700.
    pub directory: PathBuf,
    /// The master key's file, 0600. Never inside a backup of `directory`.
    pub master_key_file: PathBuf,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// `None`: plain HTTP, on a loopback address only.
    pub tls: Option<TlsFiles>,
    /// The limits, which a reload replaces.
    pub limits: ListenerLimits,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// `[devbox]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevboxConfig {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// DNS names and IP addresses of the listener's certificate.
    pub server_names: Vec<String>,
    /// Host part of the devboxes' SPIFFE ids.
    pub trust_domain: String,
    /// Lifetime of a devbox's certificate.
    pub certificate_lifetime: Duration,
    /// The listener's budgets.
    pub limits: ListenerLimits,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: does it exist, and may this user read it?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(Mistakes),
    /// `dev` was given a network address, and speaks plain HTTP.
    #[error(
        "dev speaks plain HTTP and so only listens on a loopback address: use --api 127.0.0.1:PORT (and --admin likewise), or serve with TLS"
    )]
    PlainDev,
}

impl Config {
    /// Reads the file at `path`. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`
    /// (systemd.exec(5)), if there is one.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or every mistake in it.
    pub(crate) fn load(path: &Path, credentials: Option<&Path>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, credentials)
            .map_err(|mistakes| ConfigError::Mistakes(Mistakes { file: Some(path.to_owned()), ..mistakes }))
    }

    /// The settings of `dev`: everything in `state`, plain HTTP on a loopback address, no
    /// monitoring.
    ///
    /// # Errors
    /// [`ConfigError::PlainDev`].
    pub fn dev(state: &Path, api: SocketAddr, devbox: SocketAddr) -> Result<Self, ConfigError> {
        if !api.ip().is_loopback() {
            return Err(ConfigError::PlainDev);
        }
        let mut server_names = loopback_names();
        if !devbox.ip().is_loopback() && !devbox.ip().is_unspecified() {
            server_names.push(devbox.ip().to_string());
        }
        Ok(Self {
            state: StateConfig::in_directory(state),
            api: ApiConfig { listen: api, tls: None, limits: ListenerLimits::default() },
            devbox: DevboxConfig {
                listen: devbox,
                server_names,
                trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
                certificate_lifetime: DEFAULT_CERTIFICATE_LIFETIME,
                limits: ListenerLimits::default(),
            },
            admin: None,
            retention: RetentionConfig::default(),
            log: LogConfig::default(),
            limits: Limits::default(),
        })
    }

    /// Parses a document.
    ///
    /// # Errors
    /// All mistakes, in the order of the file.
    pub fn parse(text: &str, credentials: Option<&Path>) -> Result<Self, Mistakes> {
        let mut document = Document::parse(text);
        let state = document.section("state", |section| state(section, credentials));
        let api = document.section("api", api);
        let devbox = document.section("devbox", devbox);
        let admin = document.section("admin", admin);
        let retention = document.section("retention", retention::retention);
        let log = document.section("log", log);
        let limits = document.section("limits", limits::limits);
        let config = state.zip(api).zip(devbox);
        let config =
            config.map(|((state, api), devbox)| Self { state, api, devbox, admin, retention, log, limits });
        document.finish(None, config)
    }
}

impl StateConfig {
    /// Whether a state was set up there, perhaps not completely.
    pub(crate) fn has_state(&self) -> bool {
        self.directory.join("state.sqlite3").exists()
    }

    /// A state directory as `dev` makes it, the master key inside.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), master_key_file: directory.join(DEV_MASTER_KEY) }
    }
}

fn state(section: &mut Section<'_, '_>, credentials: Option<&Path>) -> Option<StateConfig> {
    let directory = section.parsed("directory", absolute_path);
    section.missing("directory", "the directory of the database, as in \"/var/lib/devbox-secrets\"");
    let credential = credentials.map(|directory| directory.join("master-key"));
    let master_key_file = section.parsed("master_key_file", absolute_path).or(credential);
    if master_key_file.is_none() {
        section.missing(
            "master_key_file",
            "name the file, or pass the key as a systemd credential: LoadCredential=master-key:FILE",
        );
    }
    Some(StateConfig { directory: directory?, master_key_file: master_key_file? })
}

fn api(section: &mut Section<'_, '_>) -> Option<ApiConfig> {
    let listen = section.parsed("listen", socket_address);
    section.missing("listen", "an address and a port, as in \"127.0.0.1:8080\"");
    let certificate = section.parsed("tls_certificate", absolute_path);
    let key = section.parsed("tls_key", absolute_path);
    if section.has("tls_certificate") != section.has("tls_key") {
        section.missing("tls_certificate", "the certificate chain (PEM) that belongs to tls_key");
        section.missing("tls_key", "the private key (PEM) that belongs to tls_certificate");
    }
    let tls = certificate.zip(key).map(|(certificate, key)| TlsFiles { certificate, key });
    let limits = listeners::api(section);
    let listen = listen?;
    let plain = !section.has("tls_certificate") && !section.has("tls_key");
    if plain && !listen.ip().is_loopback() {
        section.mistake(
            "listen",
            "plain HTTP is served on a loopback address only: set tls_certificate and tls_key, or listen on 127.0.0.1",
        );
    }
    Some(ApiConfig { listen, tls, limits })
}

fn devbox(section: &mut Section<'_, '_>) -> Option<DevboxConfig> {
    let listen = section.parsed("listen", socket_address);
    section.missing("listen", "an address and a port, as in \"0.0.0.0:8443\"");
    let names = section.list("server_names", server_name);
    if names.as_ref().is_some_and(Vec::is_empty) {
        section.mistake(
            "server_names",
            "name at least one DNS name or IP address by which devboxes reach this server",
        );
    }
    let on_loopback = listen.is_some_and(|listen| listen.ip().is_loopback());
    if !on_loopback {
        section.missing("server_names", "the DNS names and IP addresses by which devboxes reach this server");
    }
    let trust_domain = section.parsed("trust_domain", trust_domain);
    let certificate_lifetime = section.parsed("certificate_lifetime", certificate_lifetime);
    let limits = listeners::devbox(section);
    Some(DevboxConfig {
        limits,
        listen: listen?,
        server_names: names.unwrap_or_else(loopback_names),
        trust_domain: trust_domain.unwrap_or_else(|| DEFAULT_TRUST_DOMAIN.to_owned()),
        certificate_lifetime: certificate_lifetime.unwrap_or(DEFAULT_CERTIFICATE_LIFETIME),
    })
}

fn admin(section: &mut Section<'_, '_>) -> Option<SocketAddr> {
    let listen = section.parsed("listen", socket_address)?;
    if !listen.ip().is_loopback() {
        section.mistake("listen", "monitoring is served on a loopback address only: listen on 127.0.0.1");
    }
    Some(listen)
}

fn log(section: &mut Section<'_, '_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        format: section.parsed("format", str::parse).unwrap_or(default.format),
        level: section.parsed("level", parse_level).unwrap_or(default.level),
    }
}

fn loopback_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("write an absolute path, from /") }
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, as in \"127.0.0.1:8080\" or \"[::]:8443\"")
}

fn server_name(text: &str) -> Result<String, &'static str> {
    ServerName::try_from(text)
        .map(|_| text.to_owned())
        .map_err(|_| "not a DNS name or an IP address (no port, no wildcard)")
}

/// SPIFFE-ID, section 2.1: the characters of a trust domain.
fn trust_domain(text: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a trust domain has 1 to 255 lower-case letters, digits, '.', '-' and '_'")
    }
}

fn certificate_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = time(text).map_err(|error| error.to_string())?;
    if LIFETIMES.contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("must be between \"5m\" and \"30d\"".to_owned())
    }
}

#[cfg(test)]
mod tests;
