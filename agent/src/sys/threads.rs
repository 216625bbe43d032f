//! Threads: work that may block, and the allocator's arena for all of them.
#![allow(unsafe_code, reason = "no safe library offers mallopt")]

use std::future::pending;
use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Runs `work` on a thread of its own, queued if there is much of it. For work that may block, such as files on an unknown file
/// system, or user names that a directory service resolves: the runtime has one thread, which also expires leases.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => pending().await,
        },
    }
}

/// Keeps glibc from giving each thread that allocates an arena of its own. One is 64 MiB of address space, and mlockall(2) with
/// `MCL_FUTURE` counts all of it against `RLIMIT_MEMLOCK`, which is sized for secrets. The threads other than the main one
/// allocate seldom, so a shared arena costs no time. Call before another thread starts. Other C libraries have no such arenas.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers, and changes nothing but a setting of the allocator. An old glibc without it returns 0.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
