//! Every way to fail: what is wrong, what to do, and the exit status. No message holds a value.

use core::fmt;

use devbox_launch_proto::{ErrorCode, InvalidAnswer};
use syscalls::Errno;

use crate::address::MAX_SOCKET_PATH;
use crate::limits::Excess;
use crate::line::Text;
use crate::options::UsageError;
use crate::payload::InvalidPayload;

/// Exit status if `devbox-exec` itself fails, as in env(1).
pub const EXIT_SHIM: u8 = 125;
/// Exit status if the command exists but cannot be run.
pub(crate) const EXIT_CANNOT_RUN: u8 = 126;
/// Exit status if the command does not exist.
pub(crate) const EXIT_NOT_FOUND: u8 = 127;

/// Why the command does not run, or not with its secrets.
#[derive(Debug, Clone, Copy)]
pub enum Failure<'a> {
    /// The command line is invalid.
    Usage(UsageError<'a>),
    /// The secrets are unavailable.
    Secrets(SecretsFailure<'a>),
    /// The environment is too large for the kernel.
    TooLarge(Excess<'a>),
    /// The command cannot be run.
    Command(CommandFailure<'a>),
    /// Standard output cannot be written.
    Output(Errno),
    /// There is no memory for the table of the inherited environment.
    Memory(Errno),
}

impl Failure<'_> {
    /// The exit status, as in env(1) and timeout(1).
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Command(CommandFailure { error: Errno::ENOENT | Errno::ENOTDIR, .. }) => EXIT_NOT_FOUND,
            Self::Command(_) => EXIT_CANNOT_RUN,
            _ => EXIT_SHIM,
        }
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Secrets(error) => error.fmt(f),
            Self::TooLarge(excess) => excess.fmt(f),
            Self::Command(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot write to standard output: {}", Reason(*error)),
            Self::Memory(error) => {
                write!(f, "not enough memory for the environment: {}; see 'ulimit -v'", Reason(*error))
            }
        }
    }
}

impl core::error::Error for Failure<'_> {}

impl<'a> From<UsageError<'a>> for Failure<'a> {
    fn from(error: UsageError<'a>) -> Self {
        Self::Usage(error)
    }
}

impl<'a> From<SecretsFailure<'a>> for Failure<'a> {
    fn from(error: SecretsFailure<'a>) -> Self {
        Self::Secrets(error)
    }
}

impl From<InvalidPayload> for Failure<'_> {
    fn from(error: InvalidPayload) -> Self {
        Self::Secrets(error.into())
    }
}

/// Why the secrets are unavailable. `--optional` turns these into warnings.
#[derive(Debug, Clone, Copy)]
pub enum SecretsFailure<'a> {
    /// The socket's path is empty or too long.
    SocketPath(&'a [u8]),
    /// The connection to the socket fails.
    Connect(&'a [u8], Errno),
    /// The selection exceeds the protocol's limit.
    RequestTooLarge,
    /// A system call of the exchange failed.
    Talk(&'static str, Errno),
    /// The daemon did not answer for this long, in milliseconds.
    Silent(u32),
    /// The daemon closed the connection before its answer was complete.
    Closed,
    /// The received bytes are not an answer.
    Answer(InvalidAnswer),
    /// The answer's descriptor is missing, one too many, or shorter than it says.
    Descriptor(&'static str),
    /// There is not enough memory for the variables that the answer announces.
    Memory(Errno),
    /// The answer's strings are invalid.
    Payload(InvalidPayload),
    /// The daemon refuses, with its reason.
    Refused(ErrorCode, &'a [u8]),
}

const LOG: &str = "see the daemon's log, 'journalctl -u devbox-secretsd'";
const UPGRADE: &str = "install devbox-exec and devbox-secretsd from one release";

impl fmt::Display for SecretsFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SocketPath(b"") => f.write_str("the socket's path is empty; set it with --socket"),
            Self::SocketPath(path) => write!(
                f,
                "the socket's path has {} bytes, but at most {MAX_SOCKET_PATH} are possible: {}",
                path.len(),
                Text(path)
            ),
            Self::Connect(path, error) => connect_failure(f, path, error),
            Self::RequestTooLarge => {
                f.write_str("the selection is too long for the protocol; name fewer variables")
            }
            Self::Talk(call, error @ Errno::EMFILE) => write!(
                f,
                "cannot talk to the daemon: {call}: {}; raise the limit of open files, 'ulimit -n' (RLIMIT_NOFILE)",
                Reason(error)
            ),
            Self::Talk(call, error) => write!(f, "cannot talk to the daemon: {call}: {}", Reason(error)),
            Self::Memory(error) => write!(
                f,
                "not enough memory for the variables that the daemon's answer announces: {}; see 'ulimit -v'",
                Reason(error)
            ),
            Self::Silent(milliseconds) => {
                write!(f, "the daemon did not answer within {} s; {LOG}", milliseconds / 1_000)
            }
            Self::Closed => {
                write!(f, "the daemon closed the connection before its answer was complete; {LOG}")
            }
            Self::Answer(error @ InvalidAnswer::Magic) => {
                write!(f, "{error}; is this the daemon's launch socket? See --socket")
            }
            Self::Answer(error) => write!(f, "{error}; {UPGRADE}"),
            Self::Descriptor(what) => write!(f, "the daemon's answer {what}; {UPGRADE}"),
            Self::Payload(error @ InvalidPayload::Withdrawn) => {
                write!(f, "{error}, because one was changed, deleted or revoked: launch it again; {LOG}")
            }
            Self::Payload(error) => write!(f, "the daemon's answer is broken: {error}; {UPGRADE}"),
            Self::Refused(code, b"") => write!(f, "the daemon refuses: {}; {LOG}", code.word()),
            Self::Refused(_, text) => write!(f, "{}", Text(text)),
        }
    }
}

impl core::error::Error for SecretsFailure<'_> {}

impl From<InvalidPayload> for SecretsFailure<'_> {
    fn from(error: InvalidPayload) -> Self {
        Self::Payload(error)
    }
}

fn connect_failure(f: &mut fmt::Formatter<'_>, path: &[u8], error: Errno) -> fmt::Result {
    let remedy = match error {
        Errno::ENOENT | Errno::ENOTDIR => "start devbox-secretsd, wait for it with --wait, or set --socket",
        Errno::ECONNREFUSED => "devbox-secretsd is not running: start it, or wait for it with --wait",
        Errno::EACCES | Errno::EPERM => "this user may not use the socket: check its group and mode",
        Errno::EAGAIN => "devbox-secretsd accepts no more launches: see its status and its log",
        Errno::ENOTSOCK | Errno::EPROTOTYPE => "this is not the daemon's launch socket: set --socket",
        _ => "see 'devbox-secretsd status'",
    };
    write!(f, "cannot reach the daemon at {}: {}; {remedy}", Text(path), Reason(error))
}

/// Why the command cannot be run.
#[derive(Debug, Clone, Copy)]
pub struct CommandFailure<'a> {
    /// The command as the user wrote it, or the path at which it was found.
    pub path: &'a [u8],
    /// The kernel's error.
    pub error: Errno,
    /// The `PATH` that was searched without success.
    pub searched: Option<&'a [u8]>,
    /// The file exists, so its interpreter is missing.
    pub present: bool,
}

impl fmt::Display for CommandFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run '{}': ", Text(self.path))?;
        if let (Errno::ENOENT, Some(searched)) = (self.error, self.searched) {
            return write!(f, "not found in PATH ({}); install it or give its path", Text(searched));
        }
        let remedy = match self.error {
            Errno::ENOENT if self.present => {
                "the file exists, but not the interpreter that its first line or its ELF header names"
            }
            Errno::ENOENT => "see the path",
            Errno::EACCES => {
                "make it executable (chmod +x), or check the mode and mount options of its directories"
            }
            Errno::ENOEXEC => "it is built for another machine",
            Errno::ETXTBSY => "another process is still writing it",
            Errno::EPERM => "a security policy or mount option forbids it",
            _ => "see execve(2)",
        };
        write!(f, "{}; {remedy}", Reason(self.error))
    }
}

impl core::error::Error for CommandFailure<'_> {}

/// A kernel error in words, with its name for a search.
struct Reason(Errno);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.description(), self.0.name()) {
            (Some(words), Some(name)) => write!(f, "{words} ({name})"),
            _ => write!(f, "error {}", self.0.into_raw()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn command(error: Errno) -> Failure<'static> {
        Failure::Command(CommandFailure { path: b"x", error, searched: None, present: false })
    }

    #[test]
    fn exit_statuses_are_those_of_env() {
        assert_eq!(Failure::Usage(UsageError::NoCommand).status(), 125);
        assert_eq!(Failure::Secrets(SecretsFailure::Closed).status(), 125);
        assert_eq!(command(Errno::ENOENT).status(), 127);
        assert_eq!(command(Errno::ENOTDIR).status(), 127);
        for error in [Errno::EACCES, Errno::ENOEXEC, Errno::ETXTBSY, Errno::EPERM, Errno::ELOOP] {
            assert_eq!(command(error).status(), 126, "{error:?}");
        }
    }

    #[test]
    fn a_refused_connection_says_what_to_do() {
        let text = SecretsFailure::Connect(b"/run/s", Errno::ECONNREFUSED).to_string();
        assert!(
            text.contains("/run/s: Connection refused (ECONNREFUSED)") && text.contains("--wait"),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_is_the_daemons_own_text() {
        let text = SecretsFailure::Refused(ErrorCode::Denied, b"no rule grants uid 7; add one").to_string();
        assert_eq!(text, "no rule grants uid 7; add one");
        let text = SecretsFailure::Refused(ErrorCode::Denied, b"").to_string();
        assert!(text.starts_with("the daemon refuses: denied; "), "{text}");
    }

    #[test]
    fn a_missing_interpreter_is_told_from_a_missing_file() {
        let failure =
            CommandFailure { path: b"/x", error: Errno::ENOENT, searched: None, present: true }.to_string();
        assert!(failure.contains("interpreter"), "{failure}");
    }
}
