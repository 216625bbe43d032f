//! Drops all capabilities (capabilities(7)) from all five sets.
//!
//! `CAP_IPC_LOCK` may stay, if the limit of locked memory is too small for the secrets. It lets the
//! process lock pages and nothing else. `CAP_SYS_PTRACE` may stay with one thread, if a rule names
//! a program, because other users' programs are invisible without it.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

use super::{Step, lock};

/// Drops the capabilities that this thread does not use. Call once the sockets are bound, because
/// root may have needed more to put them where they are.
pub(super) fn drop_unused(sees_programs: bool) -> Step {
    match kept(sees_programs).and_then(|kept| give_up(&kept).and_then(|()| describe(&kept))) {
        Ok(step) => step,
        Err(error) => Step::missing(format!(
            "{error}: allow capset and prctl in the sandbox (systemd: SystemCallFilter=capset prctl)"
        )),
    }
}

fn kept(sees_programs: bool) -> Result<CapsHashSet, CapsError> {
    let used =
        [(Capability::CAP_IPC_LOCK, lock::needs_capability()), (Capability::CAP_SYS_PTRACE, sees_programs)];
    let used: CapsHashSet =
        used.into_iter().filter_map(|(capability, used)| used.then_some(capability)).collect();
    Ok(caps::read(None, CapSet::Permitted)?.intersection(&used).copied().collect())
}

/// Drops each set on its own, so that a sandbox that denies one call keeps no other set alive.
/// Returns the first error.
///
/// The bounding set comes first, because dropping it takes a capability; then the sets that have an
/// effect. A set that is right already is left alone, because a sandbox may have denied the calls
/// along with the capabilities.
fn give_up(kept: &CapsHashSet) -> Result<(), CapsError> {
    let none = CapsHashSet::new();
    let bounding = empty_bounding_set();
    let sets = [
        (CapSet::Effective, kept),
        (CapSet::Permitted, kept),
        (CapSet::Inheritable, &none),
        (CapSet::Ambient, &none),
    ];
    let given_up =
        sets.map(
            |(set, wanted)| {
                if caps::read(None, set)? == *wanted { Ok(()) } else { caps::set(None, set, wanted) }
            },
        );
    given_up.into_iter().fold(bounding, Result::and)
}

fn empty_bounding_set() -> Result<(), CapsError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    let supported = caps::runtime::thread_all_supported().into_iter();
    supported.map(|capability| caps::drop(None, CapSet::Bounding, capability)).fold(Ok(()), Result::and)
}

fn describe(kept: &CapsHashSet) -> Result<Step, CapsError> {
    let left = |set| caps::read(None, set);
    let unused_are_gone = left(CapSet::Permitted)? == *kept
        && left(CapSet::Effective)? == *kept
        && left(CapSet::Inheritable)?.is_empty()
        && left(CapSet::Ambient)?.is_empty();
    if !unused_are_gone {
        return Ok(Step::missing("some capabilities could not be given up: start without them"));
    }
    let mut detail = if kept.is_empty() { "none" } else { "CAP_IPC_LOCK only, for memory" }.to_owned();
    if !left(CapSet::Bounding)?.is_empty() {
        // It limits what an execve(2) can gain, which is nothing with no_new_privs.
        detail.push_str(" (the bounding set stays: CAP_SETPCAP would be needed to empty it)");
    }
    Ok(Step::achieved_by(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_support::{Call, without};
    use devbox_secrets_tests::needs;

    fn left(set: CapSet) -> CapsHashSet {
        let lock = CapsHashSet::from([Capability::CAP_IPC_LOCK]);
        caps::read(None, set).unwrap().difference(&lock).copied().collect()
    }

    #[test]
    fn a_sandbox_that_denies_prctl_keeps_no_capability_alive() {
        if !needs::root() {
            return;
        }
        let call = Call { number: libc::SYS_prctl, argument: None, errno: libc::EPERM };
        let sandboxed = || {
            let _ = drop_unused(false);
            (left(CapSet::Effective), left(CapSet::Permitted))
        };
        let (effective, permitted) = without(call, sandboxed);
        assert!(effective.is_empty() && permitted.is_empty(), "{effective:?} {permitted:?}");
    }

    #[test]
    fn a_sandbox_that_denies_capset_is_reported_with_the_remedy() {
        if !needs::root() {
            return;
        }
        let call = Call { number: libc::SYS_capset, argument: None, errno: libc::EPERM };
        let step = without(call, || drop_unused(false));
        assert!(step.reason.is_some_and(|reason| reason.contains("SystemCallFilter=capset")));
    }
}
