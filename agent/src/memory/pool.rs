//! Launch pages that are prepared ahead, because making pages costs far more than filling them.
//!
//! One thread with a small stack makes them; they hold zeros until a launch takes one. The same thread makes the pages of
//! launches that are too large to prepare for, so that the event loop, which expires leases, never spends long on pages.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::warn;

use crate::sys::{Backing, LaunchPages, MemoryError, SecretMemory};

/// Most pages sets that are ready at a time.
const MAX_DEPTH: usize = 8;
/// Most bytes that are ready at a time. If one launch needs more, no pages are prepared.
const MAX_BYTES: usize = 1 << 20;
/// Largest set that the event loop makes itself when none is prepared, in bytes: about half a millisecond's work.
const MADE_AT_ONCE: usize = 128 << 10;
/// Time without launches before more pages are prepared, unless few are left: making pages would take the processor from the
/// launch that was just answered. A small command has started by then. A longer time would let launches that follow each other
/// closely use up the prepared pages, so that each of them pays for making some.
const QUIET: Duration = Duration::from_millis(1);
const STACK_SIZE: usize = 128 << 10;

/// A few [`LaunchPages`], each large enough for all current secrets.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    memory: SecretMemory,
    filler: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    shelf: Mutex<Shelf>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<LaunchPages>,
    /// Launches that wait for pages of their own, first come, first served.
    orders: VecDeque<Order>,
    /// Size of each prepared one, in bytes; 0 if the pool is to be empty.
    size: usize,
    taken: Option<Instant>,
    /// The thread waits for [`QUIET`] to pass, and needs no wake.
    pausing: bool,
    /// Making pages failed, and no launch came since.
    stalled: bool,
    /// The failure is logged, and no pages were made since.
    logged: bool,
    closed: bool,
}

#[derive(Debug)]
struct Order {
    len: usize,
    customer: oneshot::Sender<Result<LaunchPages, MemoryError>>,
}

#[derive(Debug)]
enum Work {
    Serve(Order),
    /// Prepare one of this size.
    Prepare(usize),
    Stop,
}

impl Pool {
    /// An empty pool and the thread that fills it; no thread if the backing has no descriptors.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(memory: SecretMemory) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let filler = match memory.backing() {
            Backing::MemfdSecret => Some(start_filler(Arc::clone(&shared), memory.clone())?),
            Backing::Mlock => None,
        };
        Ok(Self { shared, memory, filler })
    }

    /// From now on each launch needs at most `len` bytes; 0 empties the pool.
    pub(crate) fn resize(&self, len: usize) {
        let mut shelf = self.shared.lock();
        if shelf.size == len {
            return;
        }
        shelf.size = len;
        shelf.stalled = false;
        // Unmapped after the lock is released: unmapping takes long, and launches wait for this
        // lock.
        let outgrown = std::mem::take(&mut shelf.ready);
        drop(shelf);
        self.shared.wanted.notify_one();
        drop(outgrown);
    }

    /// Pages of at least `len` bytes: prepared ones, else fresh ones. Waits for the thread if the latter take long.
    ///
    /// # Errors
    /// [`MemoryError`]: the launch can still be answered inline.
    pub(crate) async fn take(&self, len: usize) -> Result<LaunchPages, MemoryError> {
        if let Some(pages) = self.pop(len) {
            return Ok(pages);
        }
        if len <= MADE_AT_ONCE || self.filler.is_none() {
            return self.memory.launch_pages(len);
        }
        let (customer, made) = oneshot::channel();
        self.shared.lock().orders.push_back(Order { len, customer });
        self.shared.wanted.notify_one();
        // The thread lives as long as the pool.
        made.await.unwrap_or(Err(MemoryError::Unavailable))
    }

    fn pop(&self, len: usize) -> Option<LaunchPages> {
        let mut shelf = self.shared.lock();
        let fits = shelf.ready.front().is_some_and(|pages| pages.size() >= len);
        let pages = if fits { shelf.ready.pop_front() } else { None };
        shelf.stalled = false;
        shelf.taken = Some(Instant::now());
        // A wake of the thread costs the launch time, so a shelf that is full enough causes none.
        let wakes = shelf.is_urgent() || shelf.is_low() && !shelf.pausing;
        drop(shelf);
        if wakes {
            self.shared.wanted.notify_one();
        }
        pages
    }

    #[cfg(test)]
    pub(crate) fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wanted.notify_one();
        if let Some(filler) = self.filler.take() {
            // An error is the filler's panic: there is no thread left to stop.
            let _ = filler.join();
        }
    }
}

impl Shelf {
    fn depth(&self) -> usize {
        MAX_BYTES.checked_div(self.size).map_or(0, |depth| depth.min(MAX_DEPTH))
    }

    /// Half of them are left: several are prepared at once then, so that few launches wake the thread.
    fn is_low(&self) -> bool {
        self.ready.len() <= self.depth() / 2
    }

    /// So few are left that more are prepared at once, even beside launches.
    fn is_urgent(&self) -> bool {
        self.ready.len() <= self.depth() / 4
    }

    /// Time until one more is to be prepared; `None` if the pool is full.
    fn until_preparing(&self) -> Option<Duration> {
        if self.stalled || self.ready.len() >= self.depth() {
            return None;
        }
        let quiet = self.taken.filter(|_| !self.is_urgent()).map_or(QUIET, |taken| taken.elapsed());
        Some(QUIET.saturating_sub(quiet))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next step. Waiting launches come first.
    fn next(&self) -> Work {
        let mut shelf = self.lock();
        loop {
            if shelf.closed {
                return Work::Stop;
            }
            if let Some(order) = shelf.orders.pop_front() {
                return Work::Serve(order);
            }
            shelf = match shelf.until_preparing() {
                None => self.wanted.wait(shelf).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Work::Prepare(shelf.size),
                Some(pause) => {
                    shelf.pausing = true;
                    let waited = self.wanted.wait_timeout(shelf, pause);
                    let mut shelf = waited.unwrap_or_else(PoisonError::into_inner).0;
                    shelf.pausing = false;
                    shelf
                }
            };
        }
    }

    /// Keeps `pages` if the pool still wants pages of `size` bytes.
    fn shelve(&self, size: usize, pages: LaunchPages) {
        let mut shelf = self.lock();
        shelf.logged = false;
        // The secrets may have grown or gone while these pages were made.
        if shelf.size == size && shelf.ready.len() < shelf.depth() {
            shelf.ready.push_back(pages);
        }
    }

    /// Waits for the next [`Pool::take`] before the next attempt. Returns whether the failure was not logged yet.
    fn stall(&self) -> bool {
        let mut shelf = self.lock();
        shelf.stalled = true;
        !std::mem::replace(&mut shelf.logged, true)
    }

    fn prepare(&self, memory: &SecretMemory, size: usize) {
        match memory.launch_pages(size) {
            Ok(pages) => self.shelve(size, pages),
            Err(error) if self.stall() => {
                warn!(%error, "launch pages cannot be prepared ahead; launches are slower");
            }
            Err(_) => {}
        }
    }
}

impl Order {
    fn serve(self, memory: &SecretMemory) {
        // The launch may have given up: its pages would be locked for no use.
        if !self.customer.is_closed() {
            let _ = self.customer.send(memory.launch_pages(self.len));
        }
    }
}

fn start_filler(shared: Arc<Shared>, memory: SecretMemory) -> io::Result<JoinHandle<()>> {
    let work = move || {
        loop {
            match shared.next() {
                Work::Serve(order) => order.serve(&memory),
                Work::Prepare(size) => shared.prepare(&memory, size),
                Work::Stop => return,
            }
        }
    };
    Builder::new().name("launch-pages".into()).stack_size(STACK_SIZE).spawn(work)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;
    use crate::sys::test_support::{block_on, memories, page_size, wait_until};
    use devbox_secrets_tests::needs::skipped;

    /// A pool over real `memfd_secret` pages; `None` if the kernel has none.
    fn pool() -> Option<(SecretMemory, Pool)> {
        let [memory, _] = memories();
        if memory.backing() == Backing::Mlock {
            skipped("memfd_secret");
            return None;
        }
        Some((memory.clone(), Pool::new(memory).unwrap()))
    }

    fn wait_for(pool: &Pool, ready: usize) {
        wait_until("as many are ready as wanted", || pool.ready() == ready);
    }

    #[test]
    fn the_pool_fills_to_its_depth_and_refills_taken_pages() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        for _ in 0..MAX_DEPTH {
            assert_eq!(block_on(pool.take(100)).unwrap().size(), page_size());
        }
        wait_for(&pool, MAX_DEPTH);
    }

    #[test]
    fn prepared_pages_are_bounded_in_bytes() {
        let Some((memory, pool)) = pool() else { return };
        pool.resize(MAX_BYTES / 2);
        wait_for(&pool, 2);
        assert_eq!(memory.bytes_locked(), MAX_BYTES);
        pool.resize(MAX_BYTES + 1);
        assert_eq!(pool.ready(), 0);
    }

    #[test]
    fn a_launch_larger_than_the_prepared_pages_gets_its_own() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        assert_eq!(block_on(pool.take(page_size() + 1)).unwrap().size(), 2 * page_size());
        assert_eq!(pool.ready(), MAX_DEPTH);
    }

    #[test]
    fn a_launch_that_is_too_large_to_prepare_for_does_not_hold_up_the_event_loop() {
        let Some((memory, pool)) = pool() else { return };
        let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
        block_on(async {
            let before = faults();
            let large = pool.take(16 * MAX_BYTES).await.unwrap();
            let touched = usize::try_from(faults() - before).unwrap();
            assert!(touched < large.size() / page_size() / 2, "this thread made {touched} pages itself");
        });
        drop(pool);
        assert_eq!(memory.bytes_locked(), 0);
    }

    #[test]
    fn an_emptied_pool_locks_no_memory() {
        let Some((memory, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        pool.resize(0);
        drop(pool);
        assert_eq!(memory.bytes_locked(), 0);
    }

    #[test]
    fn prepared_pages_hold_only_zeros() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(page_size());
        wait_for(&pool, MAX_DEPTH);
        assert!(block_on(pool.take(1)).unwrap().bytes_mut().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn without_memfd_secret_there_is_no_pool_and_the_reason_is_returned() {
        let [_, fallback] = memories();
        let pool = Pool::new(fallback).unwrap();
        pool.resize(100);
        assert_eq!(block_on(pool.take(100)).unwrap_err(), MemoryError::Unavailable);
    }
}
