//! Waking held bundle requests: by this process's writes at once, by others' when the store notices them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Registry;
use crate::crypto::id::AccountId;
use crate::metrics::Metrics;

/// How long to wait before looking again after the store failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often each account that somebody waits for had to wake its held requests, and who has not heard of it yet.
#[derive(Debug, Clone)]
pub(super) struct Changes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    accounts: Mutex<HashMap<AccountId, Waiters>>,
    metrics: Arc<Metrics>,
}

/// The held requests of one account.
#[derive(Debug)]
struct Waiters {
    wakes: watch::Sender<u64>,
    /// How many there are.
    held: usize,
    /// How many wakes were announced.
    announced: u64,
    /// How many of them were there at the newest announcement and are not answered yet.
    unanswered: usize,
    /// The oldest announcement that somebody has not been answered about.
    since: Option<Instant>,
}

/// One held request. It ends when it is answered or given up.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    account: AccountId,
    wakes: watch::Receiver<u64>,
    /// How many wakes had been announced when it last looked.
    announced: u64,
}

impl Changes {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { accounts: Mutex::default(), metrics }))
    }

    /// Follows an account from now on.
    pub(super) fn hold(&self, account: &AccountId) -> Held {
        let mut accounts = self.0.accounts();
        let waiters = accounts.entry(account.clone()).or_insert_with(Waiters::none);
        waiters.held += 1;
        self.0.metrics.request_held();
        Held {
            shared: Arc::clone(&self.0),
            account: account.clone(),
            wakes: waiters.wakes.subscribe(),
            announced: waiters.announced,
        }
    }

    /// Announces the account's wakes, just after they were committed; older ones are passed over.
    pub(super) fn publish(&self, account: &AccountId, wakes: u64) {
        if let Some(waiters) = self.0.accounts().get_mut(account) {
            waiters.announce(wakes);
        }
    }

    /// The accounts that somebody waits for.
    fn waited_for(&self) -> Vec<AccountId> {
        self.0.accounts().keys().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn is_waited_for(&self, account: &AccountId) -> bool {
        self.0.accounts().contains_key(account)
    }
}

impl Shared {
    /// A panic while the lock was held leaves the map whole: nothing that can panic is done under it.
    fn accounts(&self) -> MutexGuard<'_, HashMap<AccountId, Waiters>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    fn none() -> Self {
        Self { wakes: watch::Sender::new(0), held: 0, announced: 0, unanswered: 0, since: None }
    }

    fn announce(&mut self, wakes: u64) {
        if wakes <= *self.wakes.borrow() {
            return;
        }
        self.wakes.send_replace(wakes);
        self.announced += 1;
        self.unanswered = self.held;
        self.since = self.since.or_else(|| Some(Instant::now()));
    }

    /// One has heard of every announcement. Returns how long the account's last one had to wait, where this was it.
    fn pass_over(&mut self, announced: &mut u64) -> Option<Duration> {
        if *announced < self.announced {
            self.unanswered -= 1;
            *announced = self.announced;
        }
        let all_answered = self.unanswered == 0;
        self.since.take_if(|_| all_answered).map(|since| since.elapsed())
    }

    /// As [`Self::pass_over`], and it is gone.
    fn answer(&mut self, announced: &mut u64) -> Option<Duration> {
        self.held -= 1;
        self.pass_over(announced)
    }
}

impl Held {
    /// Returns once the account's wakes are more than `wakes`, or at `deadline`.
    pub(super) async fn until_woken(&mut self, wakes: u64, deadline: Instant) {
        // Whoever waits on has looked, and was not meant.
        self.heard(|waiters, held| waiters.pass_over(held));
        // Ended by a wake or by the deadline: either way, the caller looks again.
        let _ = timeout_at(deadline, self.wakes.wait_for(|newest| *newest > wakes)).await;
    }

    fn heard(&mut self, hear: impl FnOnce(&mut Waiters, &mut u64) -> Option<Duration>) {
        let mut accounts = self.shared.accounts();
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
    /// Notices other processes' writes for as long as it is polled; it never returns. Run one of it for the whole server.
    pub async fn watch(&self) {
        loop {
            if let Err(error) = self.publish_others_writes().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for changes; held requests may answer late"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn publish_others_writes(&self) -> Result<(), crate::store::StoreError> {
        self.store().changed().await?;
        self.follow_rotation().await?;
        self.follow_authorities().await?;
        for account in self.0.changes.waited_for() {
            let wakes = self.store().wakes(&account).await?;
            self.0.changes.publish(&account, wakes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> (Changes, AccountId) {
        (Changes::new(Arc::default()), AccountId::new("acc_1"))
    }

    #[tokio::test]
    async fn a_wake_of_its_account_ends_the_wait_and_nothing_else_does() {
        let (changes, account) = changes();
        let mut held = changes.hold(&account);
        changes.publish(&account, 4);
        changes.publish(&AccountId::new("acc_2"), 9);
        let (soon, never) = (Duration::from_millis(20), Duration::from_secs(3600));
        held.until_woken(3, Instant::now() + never).await;
        let start = Instant::now();
        held.until_woken(4, start + soon).await;
        assert!(start.elapsed() >= soon);
    }

    #[test]
    fn accounts_that_nobody_waits_for_are_forgotten() {
        let (changes, account) = changes();
        let (first, second) = (changes.hold(&account), changes.hold(&account));
        drop(first);
        assert_eq!(changes.waited_for(), [account]);
        drop(second);
        assert_eq!(changes.waited_for(), []);
    }

    #[test]
    fn a_change_is_measured_when_the_last_request_that_waited_for_it_is_answered() {
        let (changes, account) = changes();
        let (first, second) = (changes.hold(&account), changes.hold(&account));
        changes.publish(&account, 5);
        let late = changes.hold(&account);
        drop(first);
        assert_eq!(changes.0.metrics.revocations(), 0);
        drop(second);
        assert_eq!(changes.0.metrics.revocations(), 1);
        drop(late);
        assert_eq!(changes.0.metrics.revocations(), 1, "it began after the change");
    }
}
