//! The daemon's settings: from its configuration file and its command line, which wins.
//!
//! [`load`] answers with settings that are usable as they stand, or with every mistake at once.

mod document;
mod file;
mod identity;
mod mistake;
pub mod quantity;
mod rules;
mod settings;

pub use mistake::{Mistake, Mistakes};
pub use settings::{Log, Memory, Overrides, Server, Settings, Sockets, admin_beside};

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mistake::Collector;
use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;

use crate::access::policy::Policy;

/// Read where no other file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/devbox-secrets/agent.toml";

/// Longest configuration file, in bytes.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Reads `file`, or [`DEFAULT_FILE`] if it exists, and puts `overrides` over it.
///
/// # Errors
/// Every [`Mistakes`] of both.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Settings, Mistakes> {
    let file = file.map(Path::to_owned).or_else(default_file);
    let mut mistakes = Collector::default();
    let text = file.as_deref().map(|path| read(path, &mut mistakes));
    let from_file = text.as_deref().map(|text| file::read(text, &mut mistakes));
    let settings = settings::settle(from_file.unwrap_or_default(), overrides, &mut mistakes);
    let settings = settings.map(|settings| settings.of_file(file.clone()));
    mistakes.finish(file, settings)
}

/// What a file says of rules, without all that a daemon needs besides.
#[derive(Debug)]
pub struct Rules {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Who gets what.
    pub policy: Policy,
    /// The admin socket that it names, or that belongs to the launch socket that it names.
    pub admin_socket: Option<PathBuf>,
}

/// Reads the rules of `file`, or of [`DEFAULT_FILE`] if it exists.
///
/// # Errors
/// Every [`Mistakes`] of the file, also those that are not about rules.
pub fn rules_of(file: Option<&Path>) -> Result<Rules, Mistakes> {
    let file = file.map(Path::to_owned).or_else(default_file);
    let mut mistakes = Collector::default();
    let text = file.as_deref().map(|path| read(path, &mut mistakes));
    let found = text.as_deref().map(|text| file::read(text, &mut mistakes)).unwrap_or_default();
    let admin_socket = found.admin.or_else(|| found.launch.as_deref().map(admin_beside));
    let rules = found.policy.map(|policy| Rules { file: file.clone(), policy, admin_socket });
    mistakes.finish(file, rules)
}

fn default_file() -> Option<PathBuf> {
    let path = Path::new(DEFAULT_FILE);
    path.exists().then(|| path.to_owned())
}

/// The file's text; an empty one where it cannot be read, which is reported.
fn read(path: &Path, mistakes: &mut Collector) -> String {
    match read_trusted(path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.anywhere(format!("the file cannot be used: {error}"));
            String::new()
        }
    }
}

/// A user who may change this file may grant themselves every secret. So the file that is checked is the one that is read, and
/// another user's file is refused even if it is the one under that name now. A FIFO is opened without waiting for its writer.
fn read_trusted(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let owner = metadata.uid();
    let refused = if !metadata.is_file() {
        Some("it is no regular file".to_owned())
    } else if owner != 0 && owner != geteuid().as_raw() {
        Some(format!("uid {owner} owns it: chown it to root or to the daemon's user"))
    } else if metadata.mode() & 0o022 != 0 {
        Some("other users may change it: chmod go-w it".to_owned())
    } else if metadata.len() > MAX_FILE_LEN {
        Some("it has more than 1 MiB: is it the right file?".to_owned())
    } else {
        None
    };
    if let Some(reason) = refused {
        return Err(io::Error::other(reason));
    }
    let mut text = String::new();
    file.take(MAX_FILE_LEN).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
