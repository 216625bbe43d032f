//! Locked memory against the real kernel: its limits, its filters, its forks, and who can read it.
#![allow(unsafe_code, reason = "forking and filtering are what is tested")]

use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::test_support::SealedBundle;
use super::*;
use crate::sys::test_support::{
    Call, LIMIT, block_on, in_a_process_of_its_own, limit_locked_memory, memories, page_size, wait_until,
    without,
};
use crate::sys::{Backing, LockedPages, MemoryError, Requirement, SecretMemory};
use devbox_secrets_tests::needs::skipped;

const KIB: usize = 1024;

/// The flags of the mapping that `pages` are in (`VmFlags`, proc_pid_smaps(5)).
fn vm_flags(pages: &LockedPages) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", pages.bytes().as_ptr().addr());
    let mapping = smaps.split_inclusive("VmFlags:").collect::<Vec<_>>().windows(2).find_map(|pair| {
        let is_ours = pair[0].lines().any(|line| line.starts_with(&start));
        is_ours.then(|| pair[1].lines().next().unwrap_or_default().to_owned())
    });
    mapping.unwrap().split_whitespace().map(str::to_owned).collect()
}

fn has_memfd_secret(memory: &SecretMemory) -> bool {
    let has = memory.backing() == Backing::MemfdSecret;
    if !has {
        skipped(&format!("memfd_secret: {}", memory.fallback_reason().unwrap()));
    }
    has
}

#[test]
fn the_fallback_is_locked_out_of_core_dumps_and_wiped_in_a_fork() {
    let flags = vm_flags(&memories()[1].allocate(1).unwrap());
    for flag in ["lo", "dd", "wf"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} in {flags:?}");
    }
}

#[test]
fn memfd_secret_pages_are_locked_out_of_core_dumps_and_not_in_a_fork() {
    let [memory, _] = memories();
    if !has_memfd_secret(&memory) {
        return;
    }
    let flags = vm_flags(&memory.allocate(1).unwrap());
    for flag in ["lo", "dd", "dc"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} in {flags:?}");
    }
}

/// Reads `pages` as root would, through `/proc/self/mem`.
fn read_through_proc(pages: &LockedPages) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 6];
    let memory = std::fs::File::open("/proc/self/mem")?;
    memory.read_exact_at(&mut bytes, pages.bytes().as_ptr().addr() as u64)?;
    Ok(bytes)
}

#[test]
fn memfd_secret_pages_cannot_be_read_through_proc_as_the_fallback_can() {
    let [memory, fallback] = memories();
    let mut open = fallback.allocate(1).unwrap();
    open.bytes_mut()[..6].copy_from_slice(b"canary");
    assert_eq!(read_through_proc(&open).unwrap(), b"canary", "this test can read memory at all");
    if has_memfd_secret(&memory) {
        let mut closed = memory.allocate(1).unwrap();
        closed.bytes_mut()[..6].copy_from_slice(b"canary");
        let error = read_through_proc(&closed).unwrap_err().raw_os_error().map(Errno::from_raw);
        assert!(matches!(error, Some(Errno::EIO | Errno::EFAULT)), "{error:?}");
    }
}

#[test]
fn a_generation_leaves_no_descriptor_open() {
    let [memory, _] = memories();
    let pages = memory.allocate(3 * page_size() + 1).unwrap();
    let inode = {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", pages.bytes().as_ptr().addr());
        let line = maps.lines().find(|line| line.starts_with(&start)).unwrap().to_owned();
        line.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap()
    };
    let inode_of = |entry: std::io::Result<std::fs::DirEntry>| {
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(entry.ok()?.path()).ok()?).into()
    };
    let open: Vec<Option<u64>> = std::fs::read_dir("/proc/self/fd").unwrap().map(inode_of).collect();
    assert!(!open.contains(&Some(inode)));
}

/// Runs `child` in a forked process; it must call nothing that allocates or locks. Returns its exit status.
fn in_a_fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `child`, which allocates nothing and takes no lock, and leaves by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let status = child();
            // SAFETY: _exit(2) ends the child at once; nothing of the parent's is run.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, status) => status,
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn a_forked_child_has_no_copy() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    for memory in memories() {
        let mut pages = memory.allocate(1).unwrap();
        pages.bytes_mut()[..6].copy_from_slice(b"canary");
        let gone = in_a_fork(|| match memory.backing() {
            Backing::Mlock => i32::from(pages.bytes()[..6].iter().any(|byte| *byte != 0)),
            Backing::MemfdSecret => {
                i32::from(nix::unistd::write(&writer, &pages.bytes()[..6]) != Err(Errno::EFAULT))
            }
        });
        assert_eq!(gone, 0, "{:?}", memory.backing());
        assert_eq!(&pages.bytes()[..6], b"canary", "the parent keeps it");
    }
    drop(reader);
}

/// Runs `body` in a thread of its own in which `memfd_secret(2)` fails with `errno`, as under a sandbox's filter.
fn where_memfd_secret_fails<T: Send>(errno: Errno, body: impl FnOnce() -> T + Send) -> T {
    without(Call { number: libc::SYS_memfd_secret, argument: None, errno: errno as i32 }, body)
}

#[test]
fn without_memfd_secret_the_fallback_says_why() {
    for (errno, reason) in [(Errno::ENOSYS, MemoryError::Unavailable), (Errno::EPERM, MemoryError::Forbidden)]
    {
        let memory =
            where_memfd_secret_fails(errno, || SecretMemory::probe(Requirement::Any, LIMIT)).unwrap();
        assert_eq!((memory.backing(), memory.fallback_reason()), (Backing::Mlock, Some(&reason)));
    }
}

#[test]
fn a_kernel_without_the_required_memfd_secret_is_an_error() {
    let probe = || SecretMemory::probe(Requirement::MemfdSecret, LIMIT);
    let error = where_memfd_secret_fails(Errno::ENOSYS, probe).unwrap_err();
    assert_eq!(error, MemoryError::Required(Box::new(MemoryError::Unavailable)));
    assert!(error.to_string().contains("memory.require"));
}

#[test]
fn an_exhausted_lock_limit_is_an_error_with_its_remedy() {
    in_a_process_of_its_own("memory::tests::child_with_a_lock_limit_of_16_pages");
}

#[test]
#[ignore = "run in a process of its own by an_exhausted_lock_limit_is_an_error_with_its_remedy"]
fn child_with_a_lock_limit_of_16_pages() {
    let limit = 16 * page_size();
    limit_locked_memory(limit);
    let (value, names) = (vec![b'x'; 100 * KIB], ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K"]);
    let large = SealedBundle::new(1, &names.map(|name| (name, value.as_slice())));
    for memory in memories() {
        assert!(memory.allocate(limit / 2).is_ok());
        let error = memory.allocate(2 * limit).unwrap_err();
        assert!(matches!(error, MemoryError::LockLimit { len, .. } if len == 2 * limit), "{error:?}");
        assert!(error.to_string().contains(&format!("{limit} bytes; raise RLIMIT_MEMLOCK")), "{error}");
        assert!(matches!(large.open(&memory).unwrap_err(), GenerationError::Memory(_)));
        assert_eq!(memory.bytes_locked(), 0);
        assert!(memory.allocate(limit / 2).is_ok(), "a refusal costs nothing of the limit");
    }
    let [memory, _] = memories();
    if has_memfd_secret(&memory) {
        let pool = Pool::new(memory).unwrap();
        pool.resize(6 * page_size());
        wait_until("two that fit are prepared, though the pool's depth does not fit", || pool.ready() == 2);
        let pages = block_on(pool.take(6 * page_size()));
        assert!(pages.is_ok());
    }
}

#[test]
fn without_any_lockable_memory_no_secret_is_accepted() {
    in_a_process_of_its_own("memory::tests::child_without_lockable_memory");
}

#[test]
#[ignore = "run in a process of its own by without_any_lockable_memory_no_secret_is_accepted"]
fn child_without_lockable_memory() {
    limit_locked_memory(0);
    let error = SecretMemory::probe(Requirement::Any, LIMIT).unwrap_err();
    assert!(matches!(error, MemoryError::LockLimit { .. }), "{error:?}");
}

#[test]
fn pages_are_whole_and_zero() {
    for memory in memories() {
        let pages = memory.allocate(page_size() + 1).unwrap();
        assert_eq!(pages.size(), 2 * page_size());
        assert!(pages.bytes().iter().all(|byte| *byte == 0));
        assert_eq!(memory.bytes_locked(), 2 * page_size());
    }
}
