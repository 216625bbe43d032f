//! A real kernel that lacks a system call, for one thread: a seccomp filter that answers with an error.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// A call that is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    /// Only if this argument has this value.
    pub(crate) argument: Option<(u8, u64)>,
    pub(crate) errno: c_int,
}

/// Runs `test` on a thread of its own, for which `call` fails.
pub(crate) fn without<T: Send>(call: Call, test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply_filter(&program(call)).unwrap();
            test()
        });
        thread.join().unwrap()
    })
}

fn program(call: Call) -> BpfProgram {
    let rule = call.argument.map(|(index, value)| {
        let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
        SeccompRule::new(vec![condition.unwrap()]).unwrap()
    });
    let rules = BTreeMap::from([(call.number, rule.into_iter().collect())]);
    let action = SeccompAction::Errno(call.errno.unsigned_abs());
    let machine = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, action, machine).unwrap().try_into().unwrap()
}
