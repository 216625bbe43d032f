//! The file's sections: each with its keys, their defaults, and the flags that override them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use devbox_launch_proto::LAUNCH_SOCKET;
use devbox_secrets_common::config::{Document, Section, size, time};
use devbox_secrets_proto::devbox::MAX_WAIT_MS;
use nix::unistd::geteuid;

use super::settings::Overrides;
use crate::access::peer::is_anonymous_user;
use crate::access::policy::credentials::{CredentialRule, CredentialRuleConfig, CredentialRules};
use crate::access::policy::{Policy, RuleConfig};
use crate::control_plane::ServerUrl;
use crate::harden::Mode;
use crate::sys::Requirement;
use crate::telemetry::log::{self, Format};

const DEFAULT_MAX_STALE: Duration = Duration::from_secs(3_600);
const DEFAULT_POLL_WAIT: Duration = Duration::from_secs(30);
/// Shorter held requests would be a busy loop.
const MIN_POLL_WAIT: Duration = Duration::from_secs(1);
const DEFAULT_MEMORY_LIMIT: usize = 64 << 20;
const MIN_MEMORY_LIMIT: usize = 4_096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub url: ServerUrl,
    /// How long secrets are served without it.
    pub max_stale: Duration,
    /// How long it may hold a request while nothing changes.
    pub poll_wait: Duration,
}

impl Server {
    /// `None` only after a mistake was reported.
    pub(super) fn read(section: &mut Section<'_, '_>, flags: &Overrides) -> Option<Self> {
        let from_file = section.parsed("url", str::parse);
        let url = match &flags.server {
            Some(text) => {
                text.parse().map_err(|error| section.mistake_outside(&format!("--server: {error}"))).ok()
            }
            None => {
                section.missing("url", "write url = \"https://HOST:PORT\", or pass --server");
                from_file
            }
        };
        let max_stale = section.parsed("max_stale", max_stale).unwrap_or(DEFAULT_MAX_STALE);
        let poll_wait = section.parsed("poll_wait", poll_wait).unwrap_or(DEFAULT_POLL_WAIT);
        Some(Self { url: url?, max_stale, poll_wait })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The weakest acceptable kind.
    pub require: Requirement,
    /// Bound on one bundle, in bytes.
    pub limit: usize,
}

impl Memory {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            require: section.parsed("require", requirement).unwrap_or(Requirement::Any),
            limit: section.parsed("limit", limit).unwrap_or(DEFAULT_MEMORY_LIMIT),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    pub launch: PathBuf,
    pub admin: PathBuf,
    /// For units' credentials. `None`: only if the service manager passes one.
    pub credentials: Option<PathBuf>,
}

impl Sockets {
    pub(super) fn read(section: &mut Section<'_, '_>, flags: &Overrides) -> Self {
        let from_file = section.parsed("launch", absolute);
        let launch = flags.socket.clone().or(from_file).unwrap_or_else(|| LAUNCH_SOCKET.into());
        let from_file = section.parsed("admin", absolute);
        let admin = flags.admin_socket.clone().or(from_file).unwrap_or_else(|| admin_beside(&launch));
        if launch == admin {
            section.mistake_outside("launch socket and admin socket are the same file: give them two paths");
        }
        Self { launch, admin, credentials: section.parsed("credentials", absolute) }
    }
}

/// The admin socket that belongs to a launch socket: `admin.sock` beside `launch.sock`, `F.admin`
/// beside any other `F`, so that two daemons never share one.
#[must_use]
pub(crate) fn admin_beside(launch: &Path) -> PathBuf {
    match launch.file_name() {
        Some(name) if name != "launch.sock" => {
            let mut name = name.to_owned();
            name.push(".admin");
            launch.with_file_name(name)
        }
        _ => launch.with_file_name("admin.sock"),
    }
}

pub(super) fn hardening(section: &mut Section<'_, '_>) -> Mode {
    section.parsed("mode", mode).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Least level, or a filter by target.
    pub level: String,
    /// Form of a line.
    pub format: Format,
    /// Whether audit events are logged, at any level.
    pub audit: bool,
}

impl Log {
    pub(super) fn read(section: &mut Section<'_, '_>, flags: &Overrides) -> Self {
        let from_file = section.parsed("level", |text| log::filter(text).map(|_| text.to_owned()));
        if let Some(Err(error)) = flags.log_level.as_deref().map(log::filter) {
            section.mistake_outside(&format!("--log-level: {error}"));
        }
        let level = flags.log_level.clone().or(from_file).unwrap_or_else(|| log::DEFAULT_LEVEL.to_owned());
        let from_file = section.parsed("format", str::parse);
        let format = flags.log_format.or(from_file).unwrap_or_default();
        Self { level, format, audit: section.flag("audit").unwrap_or(true) }
    }
}

/// All `[[rule]]`s. A file without one grants nothing to anybody.
pub(super) fn rules(document: &mut Document<'_>) -> Policy {
    let (lines, rules): (Vec<usize>, Vec<RuleConfig>) = document.tables("rule").into_iter().unzip();
    Policy::from_config(rules).unwrap_or_else(|mistakes| {
        for mistake in mistakes {
            document.mistake_at(lines.get(mistake.index).copied(), &mistake.to_string());
        }
        Policy::default()
    })
}

/// All `[[credential]]`s.
pub(super) fn credential_rules(document: &mut Document<'_>) -> CredentialRules {
    let tables: Vec<(usize, CredentialRuleConfig)> = document.tables("credential");
    let report = |line, mistake| document.mistake_at(Some(line), &format!("[[credential]]: {mistake}"));
    let rules = tables.iter().filter_map(|(line, config)| {
        CredentialRule::from_config(config).map_err(|mistake| report(*line, mistake)).ok()
    });
    CredentialRules::new(rules.collect())
}

/// The policy without a file: the daemon's own user may have everything. It grants nothing if that
/// user is not mapped, because any other unmapped user has the same uid.
pub(super) fn own_user_only() -> Policy {
    let uid = geteuid().as_raw();
    if is_anonymous_user(uid) { Policy::default() } else { Policy::own_uid_only(uid) }
}

fn max_stale(text: &str) -> Result<Duration, String> {
    let time = time(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("must be more than 0: write \"1h\"".to_owned()) } else { Ok(time) }
}

fn poll_wait(text: &str) -> Result<Duration, String> {
    let time = time(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_millis(u64::from(MAX_WAIT_MS));
    if (MIN_POLL_WAIT..=longest).contains(&time) {
        Ok(time)
    } else {
        Err(format!("must be between {} s and {} s", MIN_POLL_WAIT.as_secs(), longest.as_secs()))
    }
}

fn requirement(text: &str) -> Result<Requirement, &'static str> {
    match text {
        "any" => Ok(Requirement::Any),
        "memfd_secret" => Ok(Requirement::MemfdSecret),
        "mlock" => Ok(Requirement::Mlock),
        _ => Err("must be \"memfd_secret\", \"mlock\" or \"any\""),
    }
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "strict" => Ok(Mode::Strict),
        "best-effort" => Ok(Mode::BestEffort),
        _ => Err("must be \"strict\" or \"best-effort\""),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    let size = size(text).map_err(|error| error.to_string())?;
    if size < MIN_MEMORY_LIMIT { Err("must be at least \"4KiB\"".to_owned()) } else { Ok(size) }
}

/// A relative path would depend on the working directory.
pub(super) fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err("must be an absolute path: start it with /") }
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
