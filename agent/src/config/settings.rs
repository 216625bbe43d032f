//! The daemon's settings, after the command line has overridden the file.

use std::fmt;
use std::path::PathBuf;

use devbox_secrets_common::config::{Document, print_size};

use super::identity;
use super::sections::{self, Log, Memory, Server, Sockets};
use crate::access::policy::credentials::CredentialRules;
use crate::access::policy::{Policy, table};
use crate::harden::Mode;
use crate::identity::Source;
use crate::telemetry::log::Format;

/// The command line, which overrides the file.
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

/// Everything the daemon runs with. It holds no secret.
#[derive(Debug)]
pub struct Settings {
    /// The file they were read from, if any.
    pub file: Option<PathBuf>,
    /// The control plane.
    pub server: Server,
    /// Source of the first identity.
    pub identity: Source,
    /// Locked memory.
    pub memory: Memory,
    /// Local sockets.
    pub sockets: Sockets,
    /// Whether the daemon starts with fewer protections than it asks for.
    pub hardening: Mode,
    /// Log lines.
    pub log: Log,
    /// Which process gets which secret.
    pub policy: Policy,
    /// Which unit may load which secret.
    pub credential_rules: CredentialRules,
}

impl Settings {
    /// Reads the whole of `document`, which is of `file`. `None` only after a mistake was reported.
    pub(super) fn read(
        document: &mut Document<'_>,
        file: Option<PathBuf>,
        flags: &Overrides,
    ) -> Option<Self> {
        let server = document.section("server", |section| Server::read(section, flags));
        let identity = document.section("identity", |section| identity::read(section, flags));
        let memory = document.section("memory", Memory::read);
        let sockets = document.section("socket", |section| Sockets::read(section, flags));
        let hardening = document.section("hardening", sections::hardening);
        let log = document.section("log", |section| Log::read(section, flags));
        let from_file = sections::rules(document);
        let policy = if file.is_some() { from_file } else { sections::own_user_only() };
        let credential_rules = sections::credential_rules(document);
        let (server, identity) = server.zip(identity)?;
        Some(Self { file, server, identity, memory, sockets, hardening, log, policy, credential_rules })
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
