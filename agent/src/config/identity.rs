//! `[identity]`: one join token, or one certificate with its key and CA.

use std::path::{Path, PathBuf};

use devbox_secrets_common::config::Section;

use super::sections::absolute;
use super::settings::Overrides;
use crate::identity::Source;
use crate::identity::files::Files;

/// Prefix of the name of a systemd credential (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)).
const CREDENTIAL: &str = "credential:";

const KEYS: [&str; 4] = ["join_token_file", "certificate", "key", "ca"];

/// The paths of `[identity]`, or of the flags, in the order of [`KEYS`].
type Paths = [Option<PathBuf>; 4];

/// Any flag replaces the whole section. `None` only after a mistake was reported.
pub(super) fn read(section: &mut Section<'_, '_>, flags: &Overrides) -> Option<Source> {
    let from_file = KEYS.map(|key| section.parsed(key, path));
    let from_flags = [&flags.join_token_file, &flags.certificate, &flags.key, &flags.ca].map(Clone::clone);
    if from_flags.iter().any(Option::is_some) {
        return source(from_flags).map_err(|text| section.mistake_outside(text)).ok();
    }
    if !KEYS.iter().any(|key| section.has(key)) {
        section.missing("join_token_file", "write it, or certificate, key and ca, or pass --join-token-file");
    }
    // The path of a key that is written but not read was reported as a mistake.
    if from_file.iter().all(Option::is_none) {
        return None;
    }
    source(from_file).map_err(|text| section.mistake_outside(text)).ok()
}

fn source(paths: Paths) -> Result<Source, &'static str> {
    match paths {
        [Some(token), None, None, None] if token == Path::new("-") => Ok(Source::JoinToken(None)),
        [Some(token), None, None, None] => Ok(Source::JoinToken(Some(token))),
        [None, Some(certificate), Some(key), Some(ca)] => Ok(Source::Files(Files { certificate, key, ca })),
        [Some(_), ..] => {
            Err("two identities: give a join token or a certificate with its key and ca, not both")
        }
        [None, ..] => Err("half an identity: certificate, key and ca go together"),
    }
}

/// An absolute path, or `credential:NAME`.
fn path(text: &str) -> Result<PathBuf, &'static str> {
    match text.strip_prefix(CREDENTIAL) {
        Some(name) => credential(name, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)),
        None => absolute(text),
    }
}

fn credential(name: &str, directory: Option<PathBuf>) -> Result<PathBuf, &'static str> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("a credential's name is one file name: write credential:NAME");
    }
    let directory =
        directory.ok_or("there are no credentials: start the daemon by systemd with LoadCredential=")?;
    Ok(directory.join(name))
}

pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::JoinToken(None) => "join token from standard input".to_owned(),
        Source::JoinToken(Some(path)) => format!("join token from {}", path.display()),
        Source::Files(files) => format!(
            "certificate {}, key {}, CA {}",
            files.certificate.display(),
            files.key.display(),
            files.ca.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_file_in_the_services_own_directory() {
        let directory = || Some(PathBuf::from("/run/credentials/x"));
        assert_eq!(credential("token", directory()), Ok("/run/credentials/x/token".into()));
        for name in ["", "../token", "a/b", "."] {
            assert!(credential(name, directory()).is_err(), "{name}");
        }
        assert!(credential("token", None).is_err());
    }
}
