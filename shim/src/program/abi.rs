//! The kernel's numbers and structures, as far as this program needs them.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("devbox-exec knows the system calls of x86-64 and AArch64 only");

// From the kernel's headers; the same on every architecture that this program knows.
pub(super) const AF_UNIX: i32 = 1;
pub(super) const SOCK_STREAM: i32 = 1;
pub(super) const SOCK_CLOEXEC: i32 = 0o2_000_000;
pub(super) const SOL_SOCKET: i32 = 1;
pub(super) const SO_SNDTIMEO: i32 = 21;
pub(super) const SCM_RIGHTS: i32 = 1;
pub(super) const POLLIN: i16 = 1;
pub(super) const MSG_CTRUNC: i32 = 8;
pub(super) const MSG_NOSIGNAL: i32 = 0x4000;
pub(super) const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
pub(super) const PROT_READ: usize = 1;
pub(super) const PROT_WRITE: usize = 2;
pub(super) const MAP_SHARED: usize = 1;
pub(super) const MAP_PRIVATE: usize = 2;
pub(super) const MAP_ANONYMOUS: usize = 0x20;
pub(super) const MAP_POPULATE: usize = 0x8000;
pub(super) const MADV_DONTDUMP: i32 = 16;
pub(super) const CLOCK_MONOTONIC: i32 = 1;
pub(super) const RLIMIT_STACK: i32 = 3;
pub(super) const AT_FDCWD: isize = -100;
pub(super) const F_OK: i32 = 0;
pub(super) const F_DUPFD_CLOEXEC: i32 = 1030;
pub(super) const O_CLOEXEC: i32 = 0o2_000_000;

/// `struct pollfd` of poll(2).
#[repr(C)]
pub(super) struct Poll {
    pub(super) descriptor: i32,
    pub(super) events: i16,
    pub(super) found: i16,
}

/// `struct iovec` of recvmsg(2).
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: *mut u8,
    pub(super) len: usize,
}

/// `struct msghdr` of recvmsg(2).
#[repr(C)]
pub(super) struct Message {
    pub(super) name: *mut u8,
    pub(super) name_len: u32,
    pub(super) parts: *mut IoVec,
    pub(super) parts_len: usize,
    pub(super) control: *mut Control,
    pub(super) control_len: usize,
    pub(super) flags: i32,
}

/// `struct cmsghdr` of cmsg(3), and one descriptor.
#[repr(C)]
pub(super) struct Control {
    pub(super) len: usize,
    pub(super) level: i32,
    pub(super) kind: i32,
    pub(super) descriptor: i32,
}

impl Control {
    /// `CMSG_LEN` of one descriptor: without the padding that would let a second in.
    pub(super) const WITH_ONE: usize = size_of::<usize>() + 3 * size_of::<i32>();

    pub(super) const EMPTY: Self = Self { len: 0, level: 0, kind: 0, descriptor: -1 };

    /// The number of the descriptor that came, if the kernel reports that it wrote so many bytes.
    pub(super) fn number(&self, written: usize) -> Option<i32> {
        let is_one = written >= Self::WITH_ONE
            && (self.len, self.level, self.kind) == (Self::WITH_ONE, SOL_SOCKET, SCM_RIGHTS);
        is_one.then_some(self.descriptor)
    }
}

/// The start of `struct stat`, whose `st_size` lies at byte 48 on x86-64 and AArch64 alike, and room for its end.
#[repr(C)]
pub(super) struct Status {
    pub(super) before: [u64; 6],
    pub(super) size: i64,
    pub(super) after: [u64; 11],
}

/// Seconds and nanoseconds.
pub(super) const fn timespec(milliseconds: u32) -> [u64; 2] {
    let milliseconds = milliseconds as u64;
    [milliseconds / 1_000, milliseconds % 1_000 * 1_000_000]
}
