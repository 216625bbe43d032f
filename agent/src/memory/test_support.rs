//! For the tests of this crate: bundles sealed for real, users, limits.
#![allow(unsafe_code, reason = "what a test takes over from the kernel or changes in one thread needs it")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::seal::{BundleKey, Context};
use devbox_secrets_tests::bundle;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{SysconfVar, geteuid, sysconf};

use super::{Generation, GenerationError, MemoryError, Requirement, SecretMemory};

pub(crate) const LIMIT: usize = 64 << 20;
const DEVBOX: &str = "dbx_test";

/// Drives `future` on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The kernel's page size, in bytes.
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

/// A bundle as it comes over the wire, and the key that opens it.
pub(crate) struct SealedBundle {
    key: BundleKey,
    message: Vec<u8>,
}

impl SealedBundle {
    /// Seals `variables`, in any order, each under its own name as the secret's, id `sec_<name>`, version 1.
    pub(crate) fn new(revision: u64, variables: &[(&str, &[u8])]) -> Self {
        let key = BundleKey::generate();
        let message = bundle::seal(key.public_key(), DEVBOX, revision, variables.iter().copied());
        Self { key, message }
    }

    pub(crate) fn flip_last_byte(&mut self) {
        *self.message.last_mut().unwrap() ^= 1;
    }

    pub(crate) fn open(&self, memory: &SecretMemory) -> Result<Generation, GenerationError> {
        let bundle = Bundle::parse(&self.message).unwrap();
        let count = u32::try_from(bundle.entries.len()).unwrap();
        let context = Context { devbox_id: DEVBOX, revision: bundle.revision, count };
        let opener = self.key.opener(bundle.encapped_key, context).unwrap();
        Generation::open(memory, &bundle, opener)
    }
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

/// Takes over a descriptor that was just received.
pub(crate) fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed it for this process, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
