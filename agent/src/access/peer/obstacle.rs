//! Why something about a process cannot be known. A rule that asks for it does not match.

use nix::errno::Errno;
use thiserror::Error;

use super::executable::MAX_HASHED;

/// What stands in the way.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No rule that could match asks for it, so it was not looked at.
    #[error("no rule asks for it")]
    NotAsked,
    /// The process that connected is not there any more, whoever may have its number now.
    #[error("the process that connected has ended")]
    Ended,
    /// It lives elsewhere.
    #[error("the process is outside the daemon's pid namespace")]
    OtherNamespace,
    /// The kernel does not say which process it is.
    #[error("the kernel gives no handle of the process ({0})")]
    NoHandle(Errno),
    /// `/proc/PID` is not to be had.
    #[error("the daemon cannot see /proc/PID ({0}): its unit needs ProtectProc=default for this rule")]
    Hidden(Errno),
    /// The program of another user's process is no one's business without a capability.
    #[error(
        "the daemon may not see which program the process runs: it needs CAP_SYS_PTRACE, and a restart if this rule is new"
    )]
    Forbidden,
    /// The file that runs has no name any more.
    #[error("its executable was deleted or replaced since it started: start it again")]
    Deleted,
    /// Another file has the name of the one that runs: a mount namespace of its own can show it any name.
    #[error("its executable is another file than the one that the daemon sees under that path")]
    OtherFile,
    /// No file has the name of the one that runs.
    #[error(
        "the daemon sees no file under its executable's path: that is of another mount namespace, or the daemon's unit hides it \
         (ProtectHome=, PrivateTmp=)"
    )]
    Unseen,
    /// Its name is no text.
    #[error("its executable has a path that is not UTF-8")]
    NotText,
    /// Too long to read for a launch.
    #[error("its executable is longer than {} MiB, the most that is hashed", MAX_HASHED >> 20)]
    TooLong,
    /// Its bytes are not to be had.
    #[error("its executable cannot be read ({0}): let the daemon's user read it")]
    Unreadable(Errno),
    /// It takes too long.
    #[error(
        "looking at the process took too long: a rule's executable belongs on a local disk, and not among very large files"
    )]
    Slow,
    /// Nobody is there to look.
    #[error(
        "the thread that looks at processes cannot be started: raise the limit of processes (LimitNPROC=)"
    )]
    NoExaminer,
}
