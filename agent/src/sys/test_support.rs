//! For tests: memory of each kind, and a kernel that allows less than this one: users, limits, system calls.
#![allow(
    unsafe_code,
    reason = "taking over descriptors from the kernel and changing one thread's user need it"
)]

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use libc::{c_int, c_long};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{SysconfVar, geteuid, sysconf};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::{MemoryError, Requirement, SecretMemory};

pub(crate) const LIMIT: usize = 64 << 20;

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn page_size() -> usize {
    usize::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap()
}

/// Waits for `condition`. One that never holds fails the test, instead of hanging it.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Fresh memory of the best kind here, and of the fallback.
pub(crate) fn memories() -> [SecretMemory; 2] {
    let best = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let fallback = SecretMemory::mlock(LIMIT, MemoryError::Unavailable).unwrap();
    [best, fallback]
}

/// Runs the ignored test `name` in a process of its own, without `CAP_IPC_LOCK`.
pub(crate) fn in_a_process_of_its_own(name: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name]);
    if geteuid().is_root() {
        child.uid(65_534).gid(65_534);
    }
    let output = child.current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{output:?}");
}

/// Sets `RLIMIT_MEMLOCK` of this whole process.
pub(crate) fn limit_locked_memory(bytes: usize) {
    let bytes = bytes as libc::rlim_t;
    setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes).unwrap();
}

/// Makes this thread, and no other, `uid`'s: on Linux each thread has its own credentials.
pub(crate) fn become_user(uid: u32) {
    // SAFETY: the call takes integers, and ends in the kernel's own checks.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    assert_eq!(result, 0);
}

pub(crate) fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed it for this process, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

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
