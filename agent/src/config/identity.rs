//! Which identity the daemon starts with: one join token, or one certificate with its key and CA.

use std::path::{Path, PathBuf};

use super::document::Document;
use super::file::absolute;
use super::mistake::Collector;
use super::settings::Overrides;
use crate::identity::Source;
use crate::identity::files::Files;

/// Marks the name of a systemd credential (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)).
const CREDENTIAL: &str = "credential:";

/// What `[identity]` says.
#[derive(Debug, Default, Clone)]
pub(super) struct FromIdentity {
    /// Whether the section has any key, were it a mistake.
    given: bool,
    token: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

pub(super) fn read(document: &Document<'_>, mistakes: &mut Collector) -> FromIdentity {
    let keys = ["join_token_file", "certificate", "key", "ca"];
    let section = document.section("identity", &keys, mistakes);
    FromIdentity {
        given: keys.iter().any(|key| section.has(key)),
        token: section.parsed("join_token_file", mistakes, path),
        certificate: section.parsed("certificate", mistakes, path),
        key: section.parsed("key", mistakes, path),
        ca: section.parsed("ca", mistakes, path),
    }
}

/// The command line's identity as a whole, else the file's.
pub(super) fn choose(file: FromIdentity, flags: &Overrides, mistakes: &mut Collector) -> Option<Source> {
    let flags = FromIdentity {
        given: false,
        token: flags.join_token_file.clone(),
        certificate: flags.certificate.clone(),
        key: flags.key.clone(),
        ca: flags.ca.clone(),
    };
    let chosen = if flags.is_empty() { file } else { flags };
    match source(&chosen) {
        Ok(source) => Some(source),
        // A key that is a mistake has been reported as one.
        Err(_) if chosen.given && chosen.is_empty() => None,
        Err(text) => {
            mistakes.anywhere(text);
            None
        }
    }
}

impl FromIdentity {
    fn is_empty(&self) -> bool {
        [&self.token, &self.certificate, &self.key, &self.ca].iter().all(|path| path.is_none())
    }
}

fn source(from: &FromIdentity) -> Result<Source, &'static str> {
    match (&from.token, &from.certificate, &from.key, &from.ca) {
        (Some(token), None, None, None) if token == Path::new("-") => Ok(Source::JoinToken(None)),
        (Some(token), None, None, None) => Ok(Source::JoinToken(Some(token.clone()))),
        (None, Some(certificate), Some(key), Some(ca)) => {
            Ok(Source::Files(Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() }))
        }
        (None, None, None, None) => Err(
            "no identity: pass --join-token-file, or write [identity] join_token_file, or certificate, key and ca",
        ),
        (Some(_), ..) => {
            Err("two identities: give a join token or a certificate with its key and ca, not both")
        }
        (None, ..) => Err("half an identity: certificate, key and ca go together"),
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
    fn a_credential_is_a_file_of_the_services_own_directory() {
        let directory = || Some(PathBuf::from("/run/credentials/x"));
        assert_eq!(credential("token", directory()), Ok("/run/credentials/x/token".into()));
        for name in ["", "../token", "a/b", "."] {
            assert!(credential(name, directory()).is_err(), "{name}");
        }
        assert!(credential("token", None).is_err());
    }
}
