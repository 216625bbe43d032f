//! The bytes on the wire: a value, or a refusal that systemd cannot mistake for one.

use std::io;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBuf;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::address::Question;
use super::refusal::Refusal;
use crate::access::policy::credentials::CredentialRules;
use crate::memory::Generation;

/// systemd takes at most 1 MiB of credentials for a unit, and fails the unit's start if there is
/// more. It takes a connection that closes without a byte for an empty credential, and starts the
/// unit. So a refusal is deliberately too long.
const REFUSAL_LEN: usize = (1 << 20) + REFUSAL_CHUNK;
const REFUSAL_CHUNK: usize = 64 * 1024;

/// Size of the kernel's buffer, in bytes: enough for a whole value, so that it is sent in one
/// piece.
const SEND_BUFFER: usize = 256 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) at: usize,
    /// The number of the first rule that grants it, counted from 1.
    pub(super) rule: usize,
}

/// The variable for `question`: the one with the credential's name, else with that name in capitals
/// and `-` and `.` as `_` (`db-password`: `DB_PASSWORD`).
pub(super) fn variable(
    generation: &Generation,
    rules: &CredentialRules,
    question: &Question,
) -> Result<Granted, Refusal> {
    let credential = &question.credential;
    let name = if generation.find(credential.as_bytes()).is_some() {
        credential.clone()
    } else {
        capitals(credential)
    };
    let unit = question.unit.clone();
    // The grant is checked first, so that a unit cannot probe for names.
    let Some(rule) = rules.granting(&unit, &name) else {
        return Err(Refusal::Denied { unit, name });
    };
    let missing = || Refusal::Missing { unit, credential: credential.clone(), name: name.clone() };
    let at = generation.find(name.as_bytes()).ok_or_else(missing)?;
    Ok(Granted { at, rule })
}

fn capitals(credential: &str) -> String {
    let capital = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_uppercase() };
    credential.chars().map(capital).collect()
}

/// Sends the value of variable `at`, straight from its locked page, and nothing else.
pub(super) async fn send_value(
    stream: &mut UnixStream,
    generation: &Generation,
    at: usize,
) -> io::Result<()> {
    // Best effort: a value that does not fit at once is sent in pieces.
    let _ = setsockopt(stream, SndBuf, &SEND_BUFFER);
    let before_value = generation.name(at).len() + "=".len();
    let string = generation.string(at);
    stream.write_all(&string[before_value..string.len() - "\0".len()]).await?;
    stream.shutdown().await
}

/// Sends `text` again and again, until it is longer than any credential.
pub(super) async fn send_refusal(stream: &mut UnixStream, text: &str) -> io::Result<()> {
    let line = format!("devbox-secretsd: refused: {text}\n");
    let lines = line.repeat(REFUSAL_CHUNK.div_ceil(line.len()));
    for _ in 0..REFUSAL_LEN.div_ceil(lines.len()) {
        stream.write_all(lines.as_bytes()).await?;
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_name_in_capitals_is_a_variables() {
        assert_eq!(capitals("db-password"), "DB_PASSWORD");
        assert_eq!(capitals("app.Token_2"), "APP_TOKEN_2");
    }
}
