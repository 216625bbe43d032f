//! Why a fact about a process is unknown. An unknown fact meets no condition.

use nix::errno::Errno;
use thiserror::Error;

use super::executable::MAX_HASHED;

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    #[error("no rule asks for it")]
    NotAsked,
    #[error("the process that connected has ended")]
    Ended,
    #[error("the process is outside the daemon's pid namespace")]
    OtherNamespace,
    #[error("the kernel gives no handle of the process ({0})")]
    NoHandle(Errno),
    /// `/proc/PID` is hidden.
    #[error("the daemon cannot see /proc/PID ({0}): its unit needs ProtectProc=default for this rule")]
    Hidden(Errno),
    #[error(
        "the daemon may not see which program the process runs: it needs CAP_SYS_PTRACE, and a restart if this rule is new"
    )]
    Forbidden,
    #[error("its executable was deleted or replaced since it started: start it again")]
    Deleted,
    /// Another file has its name: in a mount namespace of its own, a process can give any name to
    /// any file.
    #[error("its executable is another file than the one that the daemon sees under that path")]
    OtherFile,
    #[error(
        "the daemon sees no file under its executable's path: that is of another mount namespace, or the daemon's unit hides it \
         (ProtectHome=, PrivateTmp=)"
    )]
    Unseen,
    #[error("its executable has a path that is not UTF-8")]
    NotText,
    #[error("its executable is longer than {} MiB, the most that is hashed", MAX_HASHED >> 20)]
    TooLong,
    #[error("its executable cannot be read ({0}): let the daemon's user read it")]
    Unreadable(Errno),
    #[error(
        "looking at the process took too long: a rule's executable belongs on a local disk, and not among very large files"
    )]
    Slow,
    #[error(
        "the thread that looks at processes cannot be started: raise the limit of processes (LimitNPROC=)"
    )]
    NoExaminer,
}
