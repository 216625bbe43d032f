//! Descriptors prepared ahead, so that no launch waits for page set-up, which costs far more than filling the pages.
//!
//! One small thread makes them; they hold zeros until a launch takes one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use tracing::warn;

use super::{Backing, LaunchPages, MemoryError, SecretMemory};

/// Most descriptors that wait at a time.
const MAX_DEPTH: usize = 8;
/// Most bytes that wait at a time. Where one launch needs more, none wait.
const MAX_BYTES: usize = 1 << 20;
const STACK_SIZE: usize = 128 << 10;

/// A few [`LaunchPages`], each large enough for everything that is held.
#[derive(Debug)]
pub struct Pool {
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
    /// Size of each, in bytes; 0: none are wanted.
    size: usize,
    /// Making one failed, and nothing was taken since.
    stalled: bool,
    /// The failure was told, and none was made since.
    told: bool,
    closed: bool,
}

impl Pool {
    /// An empty pool, and the thread that fills it; no thread where the backing has no descriptors.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new(memory: SecretMemory) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let filler = match memory.backing() {
            Backing::MemfdSecret => Some(start_filler(Arc::clone(&shared), memory.clone())?),
            Backing::Mlock => None,
        };
        Ok(Self { shared, memory, filler })
    }

    /// From now on each launch needs at most `len` bytes; 0 empties the pool.
    pub fn resize(&self, len: usize) {
        let mut shelf = self.shared.lock();
        if shelf.size == len {
            return;
        }
        shelf.size = len;
        shelf.stalled = false;
        let outgrown = std::mem::take(&mut shelf.ready);
        drop(shelf);
        self.shared.wanted.notify_one();
        drop(outgrown);
    }

    /// Pages of at least `len` bytes: a prepared one, else a fresh one, made here and now.
    ///
    /// # Errors
    /// [`MemoryError`]: the launch can still be answered inline.
    pub fn take(&self, len: usize) -> Result<LaunchPages, MemoryError> {
        match self.pop(len) {
            Some(pages) => Ok(pages),
            None => self.memory.launch_pages(len),
        }
    }

    fn pop(&self, len: usize) -> Option<LaunchPages> {
        let mut shelf = self.shared.lock();
        let fits = shelf.ready.front().is_some_and(|pages| pages.size() >= len);
        let pages = if fits { shelf.ready.pop_front() } else { None };
        shelf.stalled = false;
        let low = shelf.ready.len() <= shelf.depth() / 2;
        drop(shelf);
        if low {
            self.shared.wanted.notify_one();
        }
        pages
    }

    /// How many wait right now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wanted.notify_one();
        if let Some(filler) = self.filler.take() {
            // A filler that panicked has nothing left to stop.
            let _ = filler.join();
        }
    }
}

impl Shelf {
    fn depth(&self) -> usize {
        MAX_BYTES.checked_div(self.size).map_or(0, |depth| depth.min(MAX_DEPTH))
    }

    fn is_content(&self) -> bool {
        !self.closed && (self.stalled || self.ready.len() >= self.depth())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of the next one to make; none when the pool is closed.
    fn next_size(&self) -> Option<usize> {
        let shelf = self
            .wanted
            .wait_while(self.lock(), |shelf| shelf.is_content())
            .unwrap_or_else(PoisonError::into_inner);
        (!shelf.closed).then_some(shelf.size)
    }

    /// Shelves pages that were wanted when `size` was; the rest goes.
    fn shelve(&self, size: usize, pages: LaunchPages) {
        let mut shelf = self.lock();
        shelf.told = false;
        if shelf.size == size && shelf.ready.len() < shelf.depth() {
            shelf.ready.push_back(pages);
        }
    }

    /// Waits for the next [`Pool::take`] before it tries again. Returns whether the failure is news.
    fn stall(&self) -> bool {
        let mut shelf = self.lock();
        shelf.stalled = true;
        !std::mem::replace(&mut shelf.told, true)
    }
}

fn start_filler(shared: Arc<Shared>, memory: SecretMemory) -> io::Result<JoinHandle<()>> {
    let fill = move || {
        while let Some(size) = shared.next_size() {
            match memory.launch_pages(size) {
                Ok(pages) => shared.shelve(size, pages),
                Err(error) if shared.stall() => {
                    warn!(%error, "launch descriptors cannot be prepared ahead; launches are slower");
                }
                Err(_) => {}
            }
        }
    };
    Builder::new().name("launch-pages".into()).stack_size(STACK_SIZE).spawn(fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test_support::memories;
    use crate::needs::skipped;

    /// A pool over real `memfd_secret` pages, or none where the kernel has no such thing.
    fn pool() -> Option<(SecretMemory, Pool)> {
        let [memory, _] = memories();
        if memory.backing() == Backing::Mlock {
            skipped("memfd_secret");
            return None;
        }
        Some((memory.clone(), Pool::new(memory).unwrap()))
    }

    fn wait_for(pool: &Pool, ready: usize) {
        while pool.ready() != ready {
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_fills_to_its_depth_and_refills_what_is_taken() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        for _ in 0..MAX_DEPTH {
            assert_eq!(pool.take(100).unwrap().size(), 4096);
        }
        wait_for(&pool, MAX_DEPTH);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let Some((memory, pool)) = pool() else { return };
        pool.resize(MAX_BYTES / 2);
        wait_for(&pool, 2);
        assert_eq!(memory.bytes_locked(), MAX_BYTES);
        pool.resize(MAX_BYTES + 1);
        assert_eq!(pool.ready(), 0);
        assert!(pool.take(MAX_BYTES + 1).unwrap().size() > MAX_BYTES);
    }

    #[test]
    fn a_launch_larger_than_what_waits_gets_pages_of_its_own() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        assert_eq!(pool.take(5_000).unwrap().size(), 8192);
        assert_eq!(pool.ready(), MAX_DEPTH);
    }

    #[test]
    fn emptied_it_keeps_nothing_locked() {
        let Some((memory, pool)) = pool() else { return };
        pool.resize(100);
        wait_for(&pool, MAX_DEPTH);
        pool.resize(0);
        drop(pool);
        assert_eq!(memory.bytes_locked(), 0);
    }

    #[test]
    fn what_waits_holds_only_zeros() {
        let Some((_, pool)) = pool() else { return };
        pool.resize(4_096);
        wait_for(&pool, MAX_DEPTH);
        assert!(pool.take(1).unwrap().bytes_mut().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn without_memfd_secret_there_is_no_pool_and_the_reason_is_told() {
        let [_, fallback] = memories();
        let pool = Pool::new(fallback).unwrap();
        pool.resize(100);
        assert_eq!(pool.take(100).unwrap_err(), MemoryError::Unavailable);
    }
}
