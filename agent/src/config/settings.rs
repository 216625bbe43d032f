//! What the daemon runs with, after file and command line are put together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devbox_launch_proto::LAUNCH_SOCKET;

use super::file::FromFile;
use super::identity;
use super::mistake::Collector;
use super::quantity::print_size;
use crate::access::policy::{Policy, table};
use crate::control_plane::ServerUrl;
use crate::harden::Mode;
use crate::identity::Source;
use crate::local_api::credentials::rules::CredentialRules;
use crate::memory::Requirement;
use crate::telemetry::log::{self, Format};

/// How long secrets are served without the control plane, if nothing else is said.
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(3_600);
/// How long the server may hold a request, if nothing else is said.
const DEFAULT_POLL_WAIT: Duration = Duration::from_secs(30);
/// Bound on one bundle, if nothing else is said, in bytes.
const DEFAULT_MEMORY_LIMIT: usize = 64 << 20;

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--server`.
    pub server: Option<String>,
    /// `--join-token-file`; `-` is standard input.
    pub join_token_file: Option<PathBuf>,
    /// `--certificate`.
    pub certificate: Option<PathBuf>,
    /// `--key`.
    pub key: Option<PathBuf>,
    /// `--ca`.
    pub ca: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--admin-socket`.
    pub admin_socket: Option<PathBuf>,
    /// `--log-level`, or `RUST_LOG`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<Format>,
}

/// The control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub url: ServerUrl,
    /// How long secrets are served without it.
    pub max_stale: Duration,
    /// How long it may hold a request while nothing changes.
    pub poll_wait: Duration,
}

/// Locked memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Which kind is good enough.
    pub require: Requirement,
    /// Bound on one bundle, in bytes.
    pub limit: usize,
}

/// Local sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// For launches.
    pub launch: PathBuf,
    /// For operators.
    pub admin: PathBuf,
    /// For units' credentials. None: only where the service manager passes one.
    pub credentials: Option<PathBuf>,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Least level, or filter by target.
    pub level: String,
    /// Their form.
    pub format: Format,
    /// Whether the audit's events are told, at any level.
    pub audit: bool,
}

/// Everything the daemon runs with. Holds no secret.
#[derive(Debug)]
pub struct Settings {
    /// The file they come from, if any.
    pub file: Option<PathBuf>,
    /// The control plane.
    pub server: Server,
    /// Where the first identity comes from.
    pub identity: Source,
    /// Locked memory.
    pub memory: Memory,
    /// Local sockets.
    pub sockets: Sockets,
    /// Whether everything that protects the process has to be there.
    pub hardening: Mode,
    /// Log lines.
    pub log: Log,
    /// Who gets what.
    pub policy: Policy,
    /// Which unit may load what.
    pub credential_rules: CredentialRules,
}

impl Settings {
    pub(super) fn of_file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file;
        self
    }
}

/// The admin socket that belongs to a launch socket: `admin.sock` beside `launch.sock`, `F.admin` beside any other `F`,
/// so that two daemons never share one.
#[must_use]
pub fn admin_beside(launch: &Path) -> PathBuf {
    match launch.file_name() {
        Some(name) if name != "launch.sock" => {
            let mut name = name.to_owned();
            name.push(".admin");
            launch.with_file_name(name)
        }
        _ => launch.with_file_name("admin.sock"),
    }
}

/// Puts `flags` over `file`. None only where a mistake was collected.
pub(super) fn settle(file: FromFile, flags: &Overrides, mistakes: &mut Collector) -> Option<Settings> {
    let url = server_url(&file, flags, mistakes);
    let identity = identity::choose(file.identity, flags, mistakes);
    let launch = flags.socket.clone().or(file.launch).unwrap_or_else(|| LAUNCH_SOCKET.into());
    let admin = flags.admin_socket.clone().or(file.admin).unwrap_or_else(|| admin_beside(&launch));
    if launch == admin {
        mistakes.anywhere("launch socket and admin socket are the same file: give them two paths");
    }
    let log = log_of(file.level, file.format, file.audit, flags, mistakes);
    Some(Settings {
        file: None,
        server: Server {
            url: url?,
            max_stale: file.max_stale.unwrap_or(DEFAULT_MAX_STALE),
            poll_wait: file.poll_wait.unwrap_or(DEFAULT_POLL_WAIT),
        },
        identity: identity?,
        memory: Memory {
            require: file.require.unwrap_or(Requirement::Any),
            limit: file.limit.unwrap_or(DEFAULT_MEMORY_LIMIT),
        },
        sockets: Sockets { launch, admin, credentials: file.credentials },
        hardening: file.hardening.unwrap_or_default(),
        log,
        policy: file.policy?,
        credential_rules: file.credential_rules?,
    })
}

fn server_url(file: &FromFile, flags: &Overrides, mistakes: &mut Collector) -> Option<ServerUrl> {
    match &flags.server {
        Some(text) => text.parse().map_err(|error| mistakes.anywhere(format!("--server: {error}"))).ok(),
        None if file.has_server_url => file.url.clone(),
        None => {
            mistakes
                .anywhere("no server: write url = \"https://HOST:PORT\" under [server], or pass --server");
            None
        }
    }
}

fn log_of(
    level: Option<String>,
    format: Option<Format>,
    audit: Option<bool>,
    flags: &Overrides,
    mistakes: &mut Collector,
) -> Log {
    if let Some(Err(error)) = flags.log_level.as_deref().map(log::filter) {
        mistakes.anywhere(format!("--log-level: {error}"));
    }
    Log {
        level: flags.log_level.clone().or(level).unwrap_or_else(|| log::DEFAULT_LEVEL.to_owned()),
        format: flags.log_format.or(format).unwrap_or_default(),
        audit: audit.unwrap_or(true),
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
        writeln!(f, "configuration file  {file}")?;
        writeln!(f, "server              {}", self.server.url)?;
        writeln!(f, "max_stale           {} s", self.server.max_stale.as_secs())?;
        writeln!(f, "poll_wait           {} s", self.server.poll_wait.as_secs())?;
        writeln!(f, "identity            {}", identity::describe(&self.identity))?;
        let limit = print_size(self.memory.limit);
        writeln!(f, "memory              require {}, limit {limit}", self.memory.require.word())?;
        writeln!(f, "launch socket       {}", self.sockets.launch.display())?;
        writeln!(f, "admin socket        {}", self.sockets.admin.display())?;
        let units = self.sockets.credentials.as_ref().map(|path| path.display().to_string());
        writeln!(
            f,
            "credentials socket  {}",
            units.as_deref().unwrap_or("the service manager's, if it has one")
        )?;
        writeln!(f, "hardening           {}", self.hardening)?;
        let audit = if self.log.audit { "with the audit" } else { "without the audit" };
        writeln!(f, "log                 {} ({}), {audit}", self.log.level, self.log.format.word())?;
        write!(f, "\n{}\n{}", table::rules(&self.policy), self.credential_rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_on_different_launch_sockets_have_different_admin_sockets() {
        let admin = |launch: &str| admin_beside(Path::new(launch)).display().to_string();
        assert_eq!(admin("/run/devbox-secrets/launch.sock"), "/run/devbox-secrets/admin.sock");
        assert_eq!(admin("/tmp/one.sock"), "/tmp/one.sock.admin");
        assert_eq!(admin("/tmp/admin.sock"), "/tmp/admin.sock.admin");
        assert_eq!(admin("s"), "s.admin");
    }
}
