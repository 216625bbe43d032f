//! One malloc arena for all threads.
#![allow(unsafe_code, reason = "no safe library offers mallopt")]

/// Keeps glibc from giving each thread that allocates an arena of its own. One is 64 MiB of address space, and mlockall(2) with
/// `MCL_FUTURE` counts all of it against `RLIMIT_MEMLOCK`, which is sized for secrets. The threads other than the main one
/// allocate seldom, so a shared arena costs no time. Call before another thread starts. Other C libraries have no such arenas.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers, and changes nothing but a setting of the allocator. An old glibc without it returns 0.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
