//! Wakes held bundle requests: after this process's writes at once, after others' when the store
//! notices them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Registry;
use crate::crypto::id::AccountId;
use crate::metrics::Metrics;
use crate::store::StoreError;

/// How long to wait before the next query after the store failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The held requests of each account, its wakes, and which requests have not been answered since
/// the last wake.
#[derive(Debug, Clone)]
pub(super) struct Changes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Table {
    accounts: HashMap<AccountId, Waiters>,
    wake_count: WakeCount,
}

/// Counts wakes across all accounts. If it is unchanged between reading the store and starting to
/// wait, no wake was missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WakeCount(u64);

#[derive(Debug)]
struct Waiters {
    wakes: watch::Sender<u64>,
    held: usize,
    announced: u64,
    /// The requests that were held at the newest announcement and are not answered yet.
    unanswered: usize,
    /// The oldest announcement that a held request has not been answered about.
    since: Option<Instant>,
}

/// One held request. It ends when it is answered or given up.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    account: AccountId,
    wakes: watch::Receiver<u64>,
    /// The number of announced wakes at its last query.
    announced: u64,
    /// Whether there was a wake between its first query and its hold.
    may_have_missed: bool,
}

impl Changes {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), metrics }))
    }

    /// Holds a request of an account whose last query of the store came after the count `looked`.
    pub(super) fn hold(&self, account: &AccountId, looked: WakeCount) -> Held {
        let mut table = self.0.table();
        let may_have_missed = table.wake_count != looked;
        let waiters = table.accounts.entry(account.clone()).or_insert_with(Waiters::none);
        waiters.held += 1;
        self.0.metrics.request_held();
        Held {
            shared: Arc::clone(&self.0),
            account: account.clone(),
            wakes: waiters.wakes.subscribe(),
            announced: waiters.announced,
            may_have_missed,
        }
    }

    /// Now.
    pub(super) fn wake_count(&self) -> WakeCount {
        self.0.table().wake_count
    }

    /// Announces the account's wakes, just after they were committed; older ones are passed over.
    pub(super) fn publish(&self, account: &AccountId, wakes: u64) {
        let mut table = self.0.table();
        table.wake_count.0 += 1;
        if let Some(waiters) = table.accounts.get_mut(account) {
            waiters.announce(wakes);
        }
    }

    /// The accounts with held requests. Counts as a wake, so that a request between its query and
    /// its hold queries again.
    fn waited_for(&self) -> Vec<AccountId> {
        let mut table = self.0.table();
        table.wake_count.0 += 1;
        table.accounts.keys().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn is_waited_for(&self, account: &AccountId) -> bool {
        self.0.table().accounts.contains_key(account)
    }
}

impl Shared {
    /// A panic while the lock was held leaves the table whole: nothing that can panic is done under
    /// it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    fn none() -> Self {
        Self { wakes: watch::Sender::new(0), held: 0, announced: 0, unanswered: 0, since: None }
    }

    fn announce(&mut self, wakes: u64) {
        // The writing request and the watcher may announce one change twice, in either order.
        if wakes <= *self.wakes.borrow() {
            return;
        }
        self.wakes.send_replace(wakes);
        self.announced += 1;
        self.unanswered = self.held;
        self.since = self.since.or_else(|| Some(Instant::now()));
    }

    /// Marks every announcement as seen by one request. If it was the last one to see them, returns
    /// the time since the oldest announcement.
    fn pass_over(&mut self, announced: &mut u64) -> Option<Duration> {
        if *announced < self.announced {
            self.unanswered -= 1;
            *announced = self.announced;
        }
        let all_answered = self.unanswered == 0;
        self.since.take_if(|_| all_answered).map(|since| since.elapsed())
    }

    /// As [`Self::pass_over`], for a request that is held no longer.
    fn answer(&mut self, announced: &mut u64) -> Option<Duration> {
        self.held -= 1;
        self.pass_over(announced)
    }
}

impl Held {
    /// Returns once the account's wakes are or may be more than `wakes`, or at `deadline`.
    pub(super) async fn until_woken(&mut self, wakes: u64, deadline: Instant) {
        if std::mem::take(&mut self.may_have_missed) {
            return;
        }
        // A request that continues to wait has queried the store since the last wake.
        self.heard(|waiters, held| waiters.pass_over(held));
        // After a wake and after the deadline alike, the caller queries the store again.
        let _ = timeout_at(deadline, self.wakes.wait_for(|newest| *newest > wakes)).await;
    }

    fn heard(&mut self, hear: impl FnOnce(&mut Waiters, &mut u64) -> Option<Duration>) {
        let accounts = &mut self.shared.table().accounts;
        let Some(waiters) = accounts.get_mut(&self.account) else { return };
        if let Some(latency) = hear(waiters, &mut self.announced) {
            self.shared.metrics.all_answered(latency);
        }
        if waiters.held == 0 {
            accounts.remove(&self.account);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.metrics.request_answered();
        self.heard(Waiters::answer);
    }
}

impl Registry {
    /// Notices other processes' writes for as long as it is polled; it never returns. Run one of it
    /// for the whole server.
    pub(crate) async fn watch(&self) {
        loop {
            until_done(|| self.store().changed()).await;
            // The store reports a change once, so publishing it is retried until it succeeds.
            until_done(|| self.publish_others_writes()).await;
        }
    }

    async fn publish_others_writes(&self) -> Result<(), StoreError> {
        self.follow_rotation().await?;
        self.follow_authorities().await?;
        let waited_for = self.0.changes.waited_for();
        if waited_for.is_empty() {
            return Ok(());
        }
        for (account, wakes) in self.store().wakes(&waited_for).await? {
            self.0.changes.publish(&account, wakes);
        }
        Ok(())
    }
}

/// Retries `act` until it succeeds.
async fn until_done<F: Future<Output = Result<(), StoreError>>>(act: impl Fn() -> F) {
    while let Err(error) = act().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "could not check for changes; held requests may be answered late"
        );
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> (Changes, AccountId) {
        (Changes::new(Arc::default()), AccountId::new("acc_1"))
    }

    fn hold(changes: &Changes, account: &AccountId) -> Held {
        changes.hold(account, changes.wake_count())
    }

    #[tokio::test]
    async fn a_wake_of_its_account_ends_the_wait_and_nothing_else_does() {
        let (changes, account) = changes();
        let mut held = hold(&changes, &account);
        changes.publish(&account, 4);
        changes.publish(&AccountId::new("acc_2"), 9);
        let soon = Duration::from_millis(20);
        let never = Duration::from_secs(3600);
        held.until_woken(3, Instant::now() + never).await;
        let start = Instant::now();
        held.until_woken(4, start + soon).await;
        assert!(start.elapsed() >= soon);
    }

    #[tokio::test]
    async fn a_request_held_after_a_wake_that_followed_its_query_queries_again_once() {
        let (changes, account) = changes();
        let start = Instant::now();
        let soon = start + Duration::from_millis(20);
        let late = start + Duration::from_secs(60);
        let looked = changes.wake_count();
        changes.publish(&account, 4);
        let mut held = changes.hold(&account, looked);
        held.until_woken(3, late).await;
        held.until_woken(4, soon).await;
        assert!(Instant::now() >= soon);
        // A write of another program is noticed before its account is known.
        let looked = changes.wake_count();
        changes.waited_for();
        changes.hold(&AccountId::new("acc_2"), looked).until_woken(1, late).await;
        assert!(Instant::now() < late);
    }

    #[tokio::test]
    async fn a_failed_act_is_retried_until_it_succeeds() {
        let tries = std::sync::atomic::AtomicU32::new(0);
        let act = || match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(StoreError::Damaged("on purpose")),
            _ => Ok(()),
        };
        until_done(|| std::future::ready(act())).await;
        assert_eq!(tries.into_inner(), 2);
    }

    #[test]
    fn accounts_without_held_requests_are_forgotten() {
        let (changes, account) = changes();
        let first = hold(&changes, &account);
        let second = hold(&changes, &account);
        drop(first);
        assert_eq!(changes.waited_for(), [account]);
        drop(second);
        assert_eq!(changes.waited_for(), []);
    }

    #[test]
    fn a_change_is_measured_when_the_last_request_that_waited_for_it_is_answered() {
        let (changes, account) = changes();
        let first = hold(&changes, &account);
        let second = hold(&changes, &account);
        changes.publish(&account, 5);
        let late = hold(&changes, &account);
        drop(first);
        assert_eq!(changes.0.metrics.revocations(), 0);
        drop(second);
        assert_eq!(changes.0.metrics.revocations(), 1);
        drop(late);
        assert_eq!(changes.0.metrics.revocations(), 1, "it began after the change");
    }
}
