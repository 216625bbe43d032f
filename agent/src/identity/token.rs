//! Reads the join token, once, into memory that is wiped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use devbox_secrets_common::secret_file::open_to_others;
use devbox_secrets_proto::join_token::{InvalidJoinToken, JoinToken, MAX_TOKEN_LEN};
use nix::libc::O_NONBLOCK;
use thiserror::Error;
use tracing::warn;
use zeroize::Zeroizing;

/// White space that may stand around a token, in bytes.
const MAX_WHITE_SPACE: usize = 64;

/// Why the join token is unavailable.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the join token cannot be read from {from}: check path and permissions")]
    Read {
        /// The file, or standard input.
        from: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The content is not a token.
    #[error("{from} holds no join token: register the devbox with the server and store what it answers")]
    Invalid {
        /// The file, or standard input.
        from: String,
        /// Which part is wrong.
        #[source]
        source: InvalidJoinToken,
    },
}

/// Reads a join token from `path`, or from standard input for `None`.
///
/// # Errors
/// [`TokenError`], which never repeats what was read.
pub fn read(path: Option<&PathBuf>) -> Result<JoinToken, TokenError> {
    let from = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let text = match path {
        Some(path) => File::open(path).and_then(|file| read_file(path, file)),
        None => read_bounded(io::stdin().lock()),
    };
    parse(from, text)
}

/// Reads a join token from a regular file, so that it never waits for a pipe's writer.
///
/// # Errors
/// [`TokenError`], which never repeats what was read.
pub(crate) fn read_regular(path: &Path) -> Result<JoinToken, TokenError> {
    parse(path.display().to_string(), open_regular(path).and_then(|file| read_file(path, file)))
}

fn parse(from: String, text: io::Result<Zeroizing<Vec<u8>>>) -> Result<JoinToken, TokenError> {
    let text = text.map_err(|source| TokenError::Read { from: from.clone(), source })?;
    JoinToken::parse(&text).map_err(|source| TokenError::Invalid { from, source })
}

/// Opens a regular file. Others could block: a pipe without a writer, a device.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

fn read_file(path: &Path, file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    warn_if_readable_by_others(path, &file)?;
    read_bounded(file)
}

/// Reads into one buffer that is never reallocated, so no copy is left behind. A longer text is truncated, hence invalid.
fn read_bounded(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let limit = MAX_TOKEN_LEN + MAX_WHITE_SPACE;
    let mut text = Zeroizing::new(vec![0; limit]);
    let mut source = source.take(limit as u64);
    let mut len = 0;
    loop {
        match source.read(&mut text[len..])? {
            0 => break,
            read => len += read,
        }
    }
    text.truncate(len);
    Ok(text)
}

/// Warns if other users can read a secret file; the devbox's owner decides.
pub(super) fn warn_if_readable_by_others(path: &Path, file: &File) -> io::Result<()> {
    if let Some(mode) = open_to_others(file, path)? {
        let mode = format!("{mode:04o}");
        warn!(path = %path.display(), mode, "other users may read this secret file: chmod 600 it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_with_white_space_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("dbx_1.secret.{}\n", "a5".repeat(32))).unwrap();
        assert_eq!(read(Some(&path)).unwrap().devbox_id(), "dbx_1");
    }

    #[test]
    fn an_error_names_the_file_and_not_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for content in ["dbx_1.hunter2", &"hunter2".repeat(1_000)] {
            std::fs::write(&path, content).unwrap();
            let error = read(Some(&path)).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
        let absent = dir.path().join("absent");
        assert!(matches!(read(Some(&absent)), Err(TokenError::Read { .. })));
    }

    #[test]
    fn a_running_daemon_does_not_wait_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        let error = read_regular(&path).unwrap_err();
        assert!(crate::telemetry::chain(&error).contains("not a regular file"), "{error:?}");
    }
}
