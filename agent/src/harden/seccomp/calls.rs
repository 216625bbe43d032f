//! The system calls that the daemon makes once it has started, as traces of all its tests show them, and those that the
//! same library functions make on other kernels and machines.
//!
//! Not listed, so that an attacker inside the process cannot use them: starting a program or a
//! process, tracing or signalling another one, listening, opening a file for writing, mounting,
//! changing user or namespace, loading code, io_uring.
//!
//! That holds in full for the unit's own user only. connect(2) is listed, and neither this list nor
//! Landlock restricts the path of a Unix socket: a daemon that runs as root can still ask PID 1,
//! D-Bus or a container engine to start a program.

use libc::c_long;
use seccompiler::BackendError;

use super::rule::Argument::{Has, Is, IsNull};
use super::rule::{Argument, Case, Rules, rule, rules};

/// Heap, stacks of threads, and the pages that hold secrets. `mmap` and `mprotect` are among [`CHECKED`].
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_memfd_secret,
    libc::SYS_ftruncate,
];

/// The threads that prepare launches and look up names, and their exit. `clone` is among
/// [`CHECKED`].
const THREADS: &[c_long] = &[
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_exit,
];

/// SIGTERM, SIGINT and SIGHUP; the guard pages of stacks; continuing after a stop.
const SIGNALS: &[c_long] = &[
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
];

/// Waiting, and the time: most machines read it without a system call, some virtual ones do not.
const WAITING: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
];

/// Peers, the control plane, the resolver and the service manager. `socket` is among [`CHECKED`];
/// `bind` and `listen` are not allowed.
const SOCKETS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
];

const DESCRIPTORS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
];

/// The configuration at SIGHUP, the resolver's files, a peer's unit; removing the sockets at the
/// end. `openat` is among [`CHECKED`]; Landlock limits the files.
const FILES: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
];

/// Names of users in changed rules: systemd's name service module asks its manager in an event loop
/// of its own. The last call sets the timers of leases and certificates.
const NAMES: &[c_long] = &[libc::SYS_epoll_create1, libc::SYS_timerfd_create, libc::SYS_timerfd_settime];

/// The process's ids, random numbers, and its exit.
const PROCESS: &[c_long] = &[
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_exit_group,
];

/// State for a successor: a key in the kernel's keyring, a sealed descriptor without
/// `memfd_secret`, and the pipe whose end tells that the service manager closed what was stored.
/// `keyctl` is among [`CHECKED`].
const SUCCESSOR: &[c_long] = &[libc::SYS_add_key, libc::SYS_memfd_create, libc::SYS_pipe2];

/// Older forms of the above, which only some machines have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

const UNCHECKED: [&[c_long]; 11] =
    [MEMORY, THREADS, SIGNALS, WAITING, SOCKETS, DESCRIPTORS, FILES, NAMES, PROCESS, SUCCESSOR, OLDER];

const WRITE: u32 = libc::PROT_WRITE.cast_unsigned();
const EXECUTE: u32 = libc::PROT_EXEC.cast_unsigned();

const UNIX: Argument = Is(0, libc::AF_UNIX.cast_unsigned());
const IPV4: Argument = Is(0, libc::AF_INET.cast_unsigned());
const IPV6: Argument = Is(0, libc::AF_INET6.cast_unsigned());
const NETLINK: Argument = Is(0, libc::AF_NETLINK.cast_unsigned());
/// The bits of a socket's type that are not flags.
const TYPE: u32 = 0xf;
const STREAM: Argument = Has(1, TYPE, libc::SOCK_STREAM.cast_unsigned());
const DATAGRAM: Argument = Has(1, TYPE, libc::SOCK_DGRAM.cast_unsigned());

/// A thread of this process as the C library creates it; no process and no namespace.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID)
    .cast_unsigned();

/// Flags of open(2) that change something.
const CHANGING: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();

/// `PR_SET_VMA` of prctl(2): newer C libraries name their mappings.
const NAME_A_MAPPING: u32 = 0x5356_4d41;

/// The operations of keyctl(2) that the daemon uses: find its keyring, and find, read, keep and
/// forget a key.
const KEYCTL: &[&[Argument]] = &[
    &[Is(0, libc::KEYCTL_GET_KEYRING_ID)],
    &[Is(0, libc::KEYCTL_LINK)],
    &[Is(0, libc::KEYCTL_SEARCH)],
    &[Is(0, libc::KEYCTL_READ)],
    &[Is(0, libc::KEYCTL_SET_TIMEOUT)],
    &[Is(0, libc::KEYCTL_REVOKE)],
    &[Is(0, libc::KEYCTL_UNLINK)],
    &[Is(0, libc::KEYCTL_INVALIDATE)],
];

/// Calls whose arguments matter.
const CHECKED: &[Case] = &[
    // Never writable and executable; executable alone is refused below.
    (
        libc::SYS_mmap,
        &[
            &[Has(2, WRITE | EXECUTE, 0)],
            &[Has(2, WRITE | EXECUTE, WRITE)],
            &[Has(2, WRITE | EXECUTE, EXECUTE)],
        ],
    ),
    // The guard page of a stack, the growth of a heap: no page becomes executable.
    (libc::SYS_mprotect, &[&[Has(2, EXECUTE, 0)]]),
    (libc::SYS_clone, &[&[Is(0, THREAD)]]),
    // Refused with an error below.
    (libc::SYS_clone3, &[]),
    // Local peers and services, TCP, and UDP to a resolver. Netlink is refused with an error below.
    (
        libc::SYS_socket,
        &[&[UNIX], &[IPV4, STREAM], &[IPV4, DATAGRAM], &[IPV6, STREAM], &[IPV6, DATAGRAM], &[NETLINK]],
    ),
    // Reading.
    (libc::SYS_openat, &[&[Has(2, CHANGING, 0)]]),
    // Non-blocking, close-on-exec, duplicates, and the seals of a descriptor for a successor.
    (
        libc::SYS_fcntl,
        &[
            &[Is(1, libc::F_GETFD.cast_unsigned())],
            &[Is(1, libc::F_SETFD.cast_unsigned())],
            &[Is(1, libc::F_GETFL.cast_unsigned())],
            &[Is(1, libc::F_SETFL.cast_unsigned())],
            &[Is(1, libc::F_DUPFD_CLOEXEC.cast_unsigned())],
            &[Is(1, libc::F_ADD_SEALS.cast_unsigned())],
            &[Is(1, libc::F_GET_SEALS.cast_unsigned())],
        ],
    ),
    // Non-blocking, close-on-exec, the length of a resolver's response, and of a launcher's unread
    // answer.
    (libc::SYS_ioctl, &[&[Is(1, FIONBIO)], &[Is(1, FIOCLEX)], &[Is(1, FIONREAD)], &[Is(1, SIOCOUTQ)]]),
    // The names of threads and mappings.
    (libc::SYS_prctl, &[&[Is(0, libc::PR_SET_NAME.cast_unsigned())], &[Is(0, NAME_A_MAPPING)]]),
    // The process's own limits, read only.
    (libc::SYS_prlimit64, &[&[Is(0, 0), IsNull(2)]]),
    (libc::SYS_keyctl, KEYCTL),
];

/// ioctl(2)'s numbers, which have another type in each C library.
const FIONBIO: u32 = 0x5421;
const FIOCLEX: u32 = 0x5451;
const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;

/// Every call that process `own` may make. The only signal is one to itself, for abort(3).
pub(super) fn allowed(own: u32) -> Result<Rules, BackendError> {
    let mut allowed = rules(CHECKED)?;
    allowed.extend(UNCHECKED.concat().into_iter().map(|call| (call, Vec::new())));
    allowed.insert(libc::SYS_tgkill, vec![rule(&[Is(0, own)])?]);
    Ok(allowed)
}

/// An error number and the call that it is returned for.
const ANSWERED: &[(i32, &[Case])] = &[
    // Its flags are in memory, out of a filter's reach: the C library falls back to `clone`.
    (libc::ENOSYS, &[(libc::SYS_clone3, &[])]),
    // The resolver asks for this machine's kinds of addresses, and works without.
    (libc::EAFNOSUPPORT, &[(libc::SYS_socket, &[&[NETLINK]])]),
    // A resolver's module is a library, and no code is loaded any more: files and DNS are built in.
    (libc::EACCES, &[(libc::SYS_mmap, &[&[Has(2, EXECUTE, EXECUTE)]])]),
];

/// The calls that return an error, by its number.
pub(super) fn answered_with_an_error() -> Result<Vec<(u32, Rules)>, BackendError> {
    ANSWERED.iter().map(|(errno, cases)| Ok((errno.cast_unsigned(), rules(cases)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_on_two_lists() {
        let unchecked = UNCHECKED.concat();
        let checked: Vec<c_long> = CHECKED.iter().map(|(call, _)| *call).collect();
        let mut all = [unchecked, checked].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a check is worth nothing for a call that is allowed without one");
    }

    #[test]
    fn no_list_has_a_call_that_leads_out_of_the_process() {
        let allowed = allowed(1).unwrap();
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_personality,
            libc::SYS_vmsplice,
        ] {
            assert!(!allowed.contains_key(&call), "{call}");
        }
    }

    #[test]
    fn every_answer_is_to_a_call_that_the_list_lets_through() {
        let allowed = allowed(1).unwrap();
        let answered = answered_with_an_error().unwrap();
        assert!(answered.iter().flat_map(|(_, rules)| rules.keys()).all(|call| allowed.contains_key(call)));
    }
}
