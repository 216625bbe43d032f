//! The configuration file's sections and keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use devbox_secrets_proto::devbox::MAX_WAIT_MS;
use nix::unistd::geteuid;

use super::document::{Document, Section};
use super::identity::{self, FromIdentity};
use super::mistake::Collector;
use super::{quantity, rules};
use crate::access::peer::is_anonymous_user;
use crate::access::policy::Policy;
use crate::control_plane::ServerUrl;
use crate::harden::Mode;
use crate::local_api::credentials::rules::CredentialRules;
use crate::memory::Requirement;
use crate::telemetry::log::{self, Format};

/// What may stand at the top of the file.
const SECTIONS: [&str; 8] =
    ["server", "identity", "memory", "socket", "hardening", "log", "rule", "credential"];
/// The shortest time that a request may be held: less would be a busy loop.
const MIN_POLL_WAIT: Duration = Duration::from_secs(1);
/// The least that a bundle may be bounded by, in bytes: one page.
const MIN_MEMORY_LIMIT: usize = 4_096;

/// What a file says.
#[derive(Debug)]
pub(super) struct FromFile {
    /// Whether it names a server at all, were it by mistake.
    pub(super) has_server_url: bool,
    pub(super) url: Option<ServerUrl>,
    pub(super) max_stale: Option<Duration>,
    pub(super) poll_wait: Option<Duration>,
    pub(super) identity: FromIdentity,
    pub(super) require: Option<Requirement>,
    pub(super) limit: Option<usize>,
    pub(super) launch: Option<PathBuf>,
    pub(super) admin: Option<PathBuf>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) hardening: Option<Mode>,
    pub(super) level: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) audit: Option<bool>,
    /// None only where a rule is a mistake.
    pub(super) policy: Option<Policy>,
    /// None only where one is a mistake.
    pub(super) credential_rules: Option<CredentialRules>,
}

/// No file: the daemon's own user may have everything.
impl Default for FromFile {
    fn default() -> Self {
        Self {
            has_server_url: false,
            url: None,
            max_stale: None,
            poll_wait: None,
            identity: FromIdentity::default(),
            require: None,
            limit: None,
            launch: None,
            admin: None,
            credentials: None,
            hardening: None,
            level: None,
            format: None,
            audit: None,
            policy: Some(own_user_only()),
            credential_rules: Some(CredentialRules::default()),
        }
    }
}

/// Grants nothing if the daemon's own user is not mapped: so is any other unmapped user.
fn own_user_only() -> Policy {
    let uid = geteuid().as_raw();
    if is_anonymous_user(uid) { Policy::default() } else { Policy::own_uid_only(uid) }
}

/// Reads the whole file, and reports every mistake in it.
pub(super) fn read(text: &str, mistakes: &mut Collector) -> FromFile {
    let document = Document::parse(text, mistakes);
    document.allow(&SECTIONS, mistakes);
    let mut found = FromFile { policy: rules::read(&document, mistakes), ..FromFile::default() };
    found.credential_rules = rules::read_credentials(&document, mistakes);
    read_server(&document, &mut found, mistakes);
    found.identity = identity::read(&document, mistakes);
    read_memory(&document, &mut found, mistakes);
    read_socket(&document, &mut found, mistakes);
    read_hardening(&document, &mut found, mistakes);
    read_log(&document, &mut found, mistakes);
    found
}

fn read_server(document: &Document<'_>, found: &mut FromFile, mistakes: &mut Collector) {
    let section = document.section("server", &["url", "max_stale", "poll_wait"], mistakes);
    found.has_server_url = section.has("url");
    found.url = section.parsed("url", mistakes, str::parse);
    found.max_stale = section.parsed("max_stale", mistakes, max_stale);
    found.poll_wait = section.parsed("poll_wait", mistakes, poll_wait);
}

fn read_memory(document: &Document<'_>, found: &mut FromFile, mistakes: &mut Collector) {
    let section = document.section("memory", &["require", "limit"], mistakes);
    found.require = section.parsed("require", mistakes, requirement);
    found.limit = section.parsed("limit", mistakes, limit);
}

fn read_socket(document: &Document<'_>, found: &mut FromFile, mistakes: &mut Collector) {
    let section = document.section("socket", &["launch", "admin", "credentials"], mistakes);
    found.launch = section.parsed("launch", mistakes, absolute);
    found.admin = section.parsed("admin", mistakes, absolute);
    found.credentials = section.parsed("credentials", mistakes, absolute);
}

fn read_hardening(document: &Document<'_>, found: &mut FromFile, mistakes: &mut Collector) {
    let section = document.section("hardening", &["mode"], mistakes);
    found.hardening = section.parsed("mode", mistakes, mode);
}

fn read_log(document: &Document<'_>, found: &mut FromFile, mistakes: &mut Collector) {
    let section: Section<'_, '_> = document.section("log", &["level", "format", "audit"], mistakes);
    let level = |text: &str| log::filter(text).map(|_| text.to_owned());
    found.level = section.parsed("level", mistakes, level);
    found.format = section.parsed("format", mistakes, str::parse);
    found.audit = section.flag("audit", mistakes);
}

fn max_stale(text: &str) -> Result<Duration, String> {
    let time = quantity::time(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("must be more than nothing: write \"1h\"".to_owned()) } else { Ok(time) }
}

fn poll_wait(text: &str) -> Result<Duration, String> {
    let time = quantity::time(text).map_err(|error| error.to_string())?;
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
    let size = quantity::size(text).map_err(|error| error.to_string())?;
    if size < MIN_MEMORY_LIMIT { Err("must be at least \"4KiB\"".to_owned()) } else { Ok(size) }
}

/// The daemon's working directory is nobody's business.
pub(super) fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err("must be an absolute path: begin it with /") }
}
