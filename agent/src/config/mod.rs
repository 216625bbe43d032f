//! The daemon's settings: from its configuration file and its command line, which wins.
//!
//! [`load`] returns settings that are usable as they stand, or every mistake at once.

mod identity;
mod sections;
mod settings;

pub use devbox_secrets_common::config::{Mistake, Mistakes};
#[cfg(test)]
use sections::Memory;
pub(crate) use sections::Sockets;
pub use settings::{Overrides, Settings};

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use devbox_secrets_common::config::Document;
use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;

/// Read if no other file is named, and if it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/devbox-secrets/agent.toml";

/// Longest configuration file, in bytes.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Reads `file`, or [`DEFAULT_FILE`] if it exists; `overrides` win.
///
/// # Errors
/// All [`Mistakes`] of both.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Settings, Mistakes> {
    load_from(file.map(Path::to_owned).or_else(default_file), overrides)
}

fn load_from(file: Option<PathBuf>, overrides: &Overrides) -> Result<Settings, Mistakes> {
    let text = file.as_deref().map(read_trusted).transpose().map_err(|error| {
        let text = format!("the file cannot be used: {error}");
        Mistakes { file: file.clone(), mistakes: vec![Mistake { line: None, text }] }
    })?;
    let mut document = Document::parse(text.as_deref().unwrap_or_default());
    let settings = Settings::read(&mut document, file.clone(), overrides);
    document.finish(file, settings)
}

/// Reads `file`, or [`DEFAULT_FILE`] if it exists, for its rules and sockets: without a server or
/// an identity, which such a file may leave to the command line.
///
/// # Errors
/// All other [`Mistakes`] of the file, including those that are not about rules.
pub fn rules_of(file: Option<&Path>) -> Result<Settings, Mistakes> {
    let placeholders = Overrides {
        server: Some("https://localhost".to_owned()),
        join_token_file: Some("-".into()),
        ..Overrides::default()
    };
    load(file, &placeholders)
}

fn default_file() -> Option<PathBuf> {
    let path = Path::new(DEFAULT_FILE);
    path.exists().then(|| path.to_owned())
}

/// A user who may change this file may grant themselves every secret. So the open file is checked,
/// not its path, and another user's file is refused. `O_NONBLOCK` opens a FIFO without waiting for
/// its writer.
fn read_trusted(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let owner = metadata.uid();
    let refused = if !metadata.is_file() {
        Some("it is not a regular file".to_owned())
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
