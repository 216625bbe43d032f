//! seccomp(2): the only system calls that the process can make from now on.
//!
//! [`calls`] is the list, with a reason for each group. Any other call, and any of these with other
//! arguments, kills the process by `SIGSYS`, and the kernel logs it (`type=1326` of the audit log).
//! A few return an error instead, because libraries try them and work without.

mod calls;
mod rule;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};
use thiserror::Error;

use self::rule::Rules;
use super::Step;

#[derive(Debug, Error)]
enum FilterError {
    #[error("the system call filter cannot be built for this machine")]
    Build(#[from] seccompiler::BackendError),
    #[error("{0}: boot a kernel with CONFIG_SECCOMP_FILTER, and allow seccomp in the sandbox")]
    Install(#[from] seccompiler::Error),
}

/// Restricts all threads, irrevocably.
pub(super) fn restrict() -> Step {
    match install() {
        Ok(count) => Step::achieved_by(format!("{count} system calls are left")),
        Err(error) => Step::missing(error.to_string()),
    }
}

/// The list comes last, because it lacks the calls that install a filter.
fn install() -> Result<usize, FilterError> {
    for (errno, rules) in calls::answered_with_an_error()? {
        apply(rules, SeccompAction::Allow, SeccompAction::Errno(errno))?;
    }
    let allowed = calls::allowed(std::process::id())?;
    let count = allowed.len();
    apply(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    Ok(count)
}

fn apply(rules: Rules, otherwise: SeccompAction, action: SeccompAction) -> Result<(), FilterError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let program = BpfProgram::try_from(SeccompFilter::new(rules, otherwise, action, machine)?)?;
    Ok(apply_filter_all_threads(&program)?)
}
