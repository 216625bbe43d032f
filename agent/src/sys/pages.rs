//! Locked mappings: fully present or an error, wiped when dropped.
//!
//! One fact makes the `unsafe` code here sound: a [`Mapping`] is the only owner of its address range, from `mmap(2)` to
//! `munmap(2)`, and everything else reaches the range through it.
#![allow(unsafe_code, reason = "mapping, locking and lending memory is what this module is for")]

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use devbox_launch_proto::{WITHDRAWN, marked_len};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use nix::sys::stat::fstat;
use nix::unistd::{ftruncate, read};
use zeroize::Zeroize;

use super::MemoryError;

/// How many bytes are locked right now, in all mappings of one [`SecretMemory`](super::SecretMemory).
#[derive(Debug, Default)]
pub(super) struct Account {
    bytes: AtomicUsize,
    refused: Mutex<BTreeSet<&'static str>>,
}

impl Account {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> Vec<&'static str> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Records a refusal of the advice called `name`: the pages are locked and wiped without it. Returns whether it was accepted.
    fn note(&self, name: &'static str, outcome: Result<(), Errno>) -> bool {
        if outcome.is_err() {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
        outcome.is_ok()
    }
}

/// A page-rounded range of memory that is never swapped and never dumped, all of it present. Wiped when dropped.
pub(crate) struct LockedPages {
    mapping: Mapping,
    account: Arc<Account>,
    wipe: bool,
}

impl LockedPages {
    /// `memfd_secret(2)` pages, with the descriptor behind them. `len` is a multiple of the page size; `zeros` is
    /// `/dev/zero`.
    pub(super) fn secret(
        len: NonZeroUsize,
        zeros: &File,
        account: &Arc<Account>,
    ) -> Result<(Self, OwnedFd), MemoryError> {
        let fail = |call| move |errno| MemoryError::from_call(call, len.get(), errno);
        let descriptor = memfd_secret().map_err(fail("memfd_secret"))?;
        ftruncate(&descriptor, file_len(len)).map_err(fail("ftruncate"))?;
        let mut mapping = Mapping::shared(&descriptor, len).map_err(fail("mmap"))?;
        mapping.touch(zeros).map_err(fail("read"))?;
        // Linux itself keeps memfd_secret pages out of core dumps and swap, but a forked child would inherit them.
        mapping.advise(MmapAdvise::MADV_DONTFORK).map_err(fail("madvise"))?;
        Ok((Self::new(mapping, account), descriptor))
    }

    /// Anonymous pages with `mlock(2)`, out of core dumps, zeros or absent in a forked child; only the lock is mandatory. `len` is
    /// a multiple of the page size.
    pub(super) fn anonymous(len: NonZeroUsize, account: &Arc<Account>) -> Result<Self, MemoryError> {
        let fail = |call| move |errno| MemoryError::from_call(call, len.get(), errno);
        let mapping = Mapping::anonymous(len).map_err(fail("mmap"))?;
        // gVisor lacks some of these. The process dumps no core and starts no child, so a refusal is not fatal.
        account.note("MADV_DONTDUMP", mapping.advise(MmapAdvise::MADV_DONTDUMP));
        if !account.note("MADV_WIPEONFORK", mapping.advise(MmapAdvise::MADV_WIPEONFORK)) {
            account.note("MADV_DONTFORK", mapping.advise(MmapAdvise::MADV_DONTFORK));
        }
        mapping.lock().map_err(fail("mlock"))?;
        Ok(Self::new(mapping, account))
    }

    fn new(mapping: Mapping, account: &Arc<Account>) -> Self {
        account.bytes.fetch_add(mapping.len.get(), Ordering::Relaxed);
        Self { mapping, account: Arc::clone(account), wipe: true }
    }

    /// All bytes of the pages. Bytes that were never written are 0.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, initialised (the kernel made it of zeros), as long as `self`, and only `&mut
        // self` writes to it: its descriptor, if there is one, is closed or owned by the same `LaunchPages`.
        unsafe { std::slice::from_raw_parts(self.mapping.address.as_ptr(), self.mapping.len.get()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.mapping.bytes_mut()
    }

    /// Length in bytes: a multiple of the page size, never 0.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.mapping.len.get()
    }
}

impl Drop for LockedPages {
    fn drop(&mut self) {
        if self.wipe {
            self.bytes_mut().zeroize();
        }
        self.account.bytes.fetch_sub(self.mapping.len.get(), Ordering::Relaxed);
    }
}

impl fmt::Debug for LockedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedPages").field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl LockedPages {
    /// Maps a descriptor as a launcher does.
    pub(crate) fn received(descriptor: &OwnedFd, len: usize) -> Result<Self, Errno> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        Ok(Self::new(Mapping::shared(descriptor, len)?, &Arc::default()))
    }
}

/// `memfd_secret(2)` pages for one launch: filled here, then handed over by their descriptor.
#[derive(Debug)]
pub(crate) struct LaunchPages {
    pages: LockedPages,
    descriptor: OwnedFd,
}

impl LaunchPages {
    pub(super) fn new((pages, descriptor): (LockedPages, OwnedFd)) -> Self {
        Self { pages, descriptor }
    }

    /// Length in bytes.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.pages.size()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.pages.bytes_mut()
    }

    /// Unmaps the pages, contents kept, and returns the one descriptor by which they can be reached.
    #[must_use]
    pub(crate) fn into_descriptor(mut self) -> OwnedFd {
        self.pages.wipe = false;
        self.descriptor
    }

    /// Passes the descriptor on by `hand_over`, then closes this process's copy. The first `len` bytes are the strings, the
    /// next one is their mark. The pages stay mapped, to be withdrawn if no launcher reads the message; they are wiped here
    /// if `hand_over` fails.
    ///
    /// # Errors
    /// Those of `hand_over`.
    ///
    /// # Panics
    /// If the pages have no room for the mark.
    pub(crate) async fn hand_over<E>(
        self,
        len: usize,
        hand_over: impl AsyncFnOnce(BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<SentPages, E> {
        let Self { pages, descriptor } = self;
        assert!(marked_len(len) <= pages.size(), "the pages have room for the mark");
        let sent = SentPages { pages, len };
        hand_over(descriptor.as_fd()).await?;
        Ok(sent)
    }

    #[cfg(test)]
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }
}

/// Launch pages whose descriptor was sent, and is closed here. Dropped, they are marked as withdrawn and wiped, because the
/// kernel does not take back the descriptor itself.
#[derive(Debug)]
pub(crate) struct SentPages {
    pages: LockedPages,
    /// Bytes of the strings; their mark follows.
    len: usize,
}

impl SentPages {
    /// The launcher has the descriptor: unmaps the pages, contents kept.
    pub(crate) fn release(mut self) {
        self.pages.wipe = false;
    }

    /// Marks the strings as withdrawn, then wipes them unless `has_read` returns that the launcher has its answer. Returns
    /// whether they were wiped.
    ///
    /// The order is the daemon's half of the launch protocol's section on withdrawing: asked before the mark is set,
    /// `has_read` could be outdated by a launcher that sees neither the mark nor, a moment later, its strings.
    pub(crate) fn withdraw(mut self, has_read: impl FnOnce() -> bool) -> bool {
        self.mark();
        if has_read() {
            self.release();
            return false;
        }
        true
    }

    fn mark(&mut self) {
        let mark = &raw mut self.pages.bytes_mut()[self.len];
        // SAFETY: a byte of this mapping, which nothing borrows until the end of this function; other processes that have
        // the pages only read this byte, and atomically.
        let mark = unsafe { AtomicU8::from_ptr(mark) };
        mark.store(WITHDRAWN, Ordering::SeqCst);
        // The mark is visible before the kernel is asked about the launcher.
        fence(Ordering::SeqCst);
    }
}

impl Drop for SentPages {
    fn drop(&mut self) {
        if std::mem::take(&mut self.pages.wipe) {
            self.mark();
            // All but the mark: a launcher that reads zeros has to find it.
            let (strings, rest) = self.pages.bytes_mut().split_at_mut(self.len);
            strings.zeroize();
            rest[1..].zeroize();
        }
    }
}

/// A copy of the pages behind a `memfd_secret(2)` descriptor that was received. The copy is ordinary memory: the pages
/// must hold nothing that is secret by itself.
pub(super) fn copy_received(descriptor: &OwnedFd) -> Result<Vec<u8>, MemoryError> {
    let fail = |call| move |errno| MemoryError::from_call(call, 0, errno);
    let size = fstat(descriptor).map_err(fail("fstat"))?.st_size;
    let Some(len) = usize::try_from(size).ok().and_then(NonZeroUsize::new) else { return Ok(Vec::new()) };
    let mapping = Mapping::shared(descriptor, len).map_err(fail("mmap"))?;
    let mut copy = vec![0; len.get()];
    // SAFETY: both are `len` bytes long, and the copy was made just now, so they do not overlap. A pointer, not a slice,
    // reads the mapping: another process may hold the same pages.
    unsafe { std::ptr::copy_nonoverlapping(mapping.address.as_ptr(), copy.as_mut_ptr(), len.get()) };
    Ok(copy)
}

/// A range of mapped memory, unmapped when dropped.
struct Mapping {
    address: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: an address range belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` only lends shared slices, and writing to it takes `&mut`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn shared(descriptor: &OwnedFd, len: NonZeroUsize) -> Result<Self, Errno> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel picks a free range, so no other object lives there.
        let address = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, descriptor, 0) }?;
        Ok(Self { address: address.cast(), len })
    }

    fn anonymous(len: NonZeroUsize) -> Result<Self, Errno> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel picks a free range, so no other object lives there.
        let address = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }?;
        Ok(Self { address: address.cast(), len })
    }

    fn start(&self) -> NonNull<c_void> {
        self.address.cast()
    }

    fn advise(&self, advice: MmapAdvise) -> Result<(), Errno> {
        // SAFETY: the range is this mapping; MADV_DONTFORK, _DONTDUMP and _WIPEONFORK leave this process's bytes alone.
        unsafe { madvise(self.start(), self.len.get(), advice) }
    }

    /// Locks all pages, which also makes them present.
    fn lock(&self) -> Result<(), Errno> {
        // SAFETY: the range is this mapping, and locking changes no byte of it.
        unsafe { mlock(self.start(), self.len.get()) }
    }

    /// Makes all pages present by having the *kernel* write zeros to them. Over the limit of locked memory the kernel's write
    /// fails with `EFAULT`; a write from here would raise SIGBUS.
    fn touch(&mut self, zeros: &File) -> Result<(), Errno> {
        let mut rest = self.bytes_mut();
        while !rest.is_empty() {
            match read(zeros, rest) {
                Ok(0) => return Err(Errno::ENODATA),
                Ok(written) => rest = &mut rest[written..],
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is writable, initialised (the kernel made it of zeros), as long as `self`, and `&mut self`
        // lends it once.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, which nothing borrows any more. It cannot fail: the range is page-aligned.
        let unmapped = unsafe { munmap(self.start(), self.len.get()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// `memfd_secret(2)`, close-on-exec. Neither the C library nor `nix` has it.
fn memfd_secret() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes one integer and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `off_t` of a length. One that does not fit is refused by `ftruncate(2)` (`EINVAL`).
fn file_len(len: NonZeroUsize) -> libc::off_t {
    libc::off_t::try_from(len.get()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_support::{Call, page_size, without};
    use devbox_secrets_tests::needs::skipped;

    fn page() -> NonZeroUsize {
        NonZeroUsize::new(page_size()).unwrap()
    }

    #[test]
    fn a_page_over_the_limit_is_an_error_and_no_signal() {
        let zeros = File::open("/dev/zero").unwrap();
        let Ok(descriptor) = memfd_secret() else {
            return skipped("memfd_secret");
        };
        let two_pages = page().saturating_add(page().get());
        ftruncate(&descriptor, file_len(page())).unwrap();
        // The second page is past the end of the file: touched from here it would be SIGBUS, as over the lock limit.
        let mut mapping = Mapping::shared(&descriptor, two_pages).unwrap();
        assert_eq!(mapping.touch(&zeros), Err(Errno::EFAULT));
    }

    #[test]
    fn a_kernel_without_wipe_on_fork_still_locks_memory_and_the_gap_is_known() {
        let account = Arc::default();
        let made =
            without(Call { number: libc::SYS_madvise, argument: Some((2, 18)), errno: libc::EINVAL }, || {
                LockedPages::anonymous(page(), &account)
            });
        assert!(made.unwrap().bytes().iter().all(|byte| *byte == 0));
        assert_eq!(account.refused(), ["MADV_WIPEONFORK"]);
    }

    #[test]
    fn dropped_launch_pages_leave_zeros_behind() {
        let zeros = File::open("/dev/zero").unwrap();
        let Ok(made) = LockedPages::secret(page(), &zeros, &Arc::default()) else {
            return skipped("memfd_secret");
        };
        let mut pages = LaunchPages::new(made);
        let witness = Mapping::shared(pages.descriptor(), page()).unwrap();
        let witness = LockedPages::new(witness, &Arc::default());
        pages.bytes_mut()[..6].copy_from_slice(b"canary");
        assert_eq!(&witness.bytes()[..6], b"canary");
        drop(pages);
        assert!(witness.bytes().iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn launch_pages_that_were_not_taken_leave_zeros_behind() {
        let zeros = File::open("/dev/zero").unwrap();
        let Ok(made) = LockedPages::secret(page(), &zeros, &Arc::default()) else {
            return skipped("memfd_secret");
        };
        let mut pages = LaunchPages::new(made);
        let witness = Mapping::shared(pages.descriptor(), page()).unwrap();
        let witness = LockedPages::new(witness, &Arc::default());
        pages.bytes_mut()[..6].copy_from_slice(b"canary");
        let error = pages.hand_over(6, async |_| Err("the launcher is gone")).await.unwrap_err();
        assert_eq!(error, "the launcher is gone");
        assert_eq!(witness.bytes()[..7], *b"\0\0\0\0\0\0\x01");
    }

    /// Sent pages with six bytes of strings, and the launcher's mapping of them.
    async fn sent_canary() -> Option<(SentPages, LockedPages)> {
        let zeros = File::open("/dev/zero").unwrap();
        let Ok(made) = LockedPages::secret(page(), &zeros, &Arc::default()) else {
            skipped("memfd_secret");
            return None;
        };
        let mut pages = LaunchPages::new(made);
        let launcher = Mapping::shared(pages.descriptor(), page()).unwrap();
        let launcher = LockedPages::new(launcher, &Arc::default());
        pages.bytes_mut()[..6].copy_from_slice(b"canary");
        let sent = pages.hand_over(6, async |_| Ok::<_, Errno>(())).await.unwrap();
        assert_eq!(launcher.bytes()[..7], *b"canary\0");
        Some((sent, launcher))
    }

    #[tokio::test]
    async fn released_pages_keep_their_strings_and_dropped_ones_only_their_mark() {
        let Some((sent, launcher)) = sent_canary().await else { return };
        sent.release();
        assert_eq!(launcher.bytes()[..7], *b"canary\0");
        let Some((sent, launcher)) = sent_canary().await else { return };
        drop(sent);
        assert_eq!(launcher.bytes()[..7], *b"\0\0\0\0\0\0\x01");
        assert!(launcher.bytes()[7..].iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn strings_are_marked_before_the_daemon_asks_whether_they_are_read() {
        for is_read in [true, false] {
            let Some((sent, launcher)) = sent_canary().await else { return };
            // The launcher's whole turn at the worst moment: between the mark and the wipe.
            let seen = std::cell::Cell::new([0; 7]);
            let wiped = sent.withdraw(|| {
                seen.set(launcher.bytes()[..7].try_into().unwrap());
                is_read
            });
            assert_eq!(seen.get(), *b"canary\x01", "marked, and not wiped yet");
            assert_eq!(wiped, !is_read);
            let left = if is_read { *b"canary\x01" } else { *b"\0\0\0\0\0\0\x01" };
            assert_eq!(launcher.bytes()[..7], left);
        }
    }

    #[test]
    fn launch_pages_handed_over_keep_their_contents() {
        let zeros = File::open("/dev/zero").unwrap();
        let Ok(made) = LockedPages::secret(page(), &zeros, &Arc::default()) else {
            return skipped("memfd_secret");
        };
        let mut pages = LaunchPages::new(made);
        pages.bytes_mut()[..6].copy_from_slice(b"canary");
        let descriptor = pages.into_descriptor();
        let received = LockedPages::new(Mapping::shared(&descriptor, page()).unwrap(), &Arc::default());
        assert_eq!(&received.bytes()[..6], b"canary");
    }
}
