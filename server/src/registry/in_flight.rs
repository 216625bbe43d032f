//! How many bytes of values are being loaded, sealed or sent at a time, of all devboxes together.
//!
//! An account gets at most a sixteenth, or one whole bundle if that is more: if all devboxes of an
//! account request at once, they wait for each other and not the other accounts.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;
use super::identity_sessions::SessionClaim;
use crate::crypto::id::AccountId;

/// Of the whole, the part of one account.
const ACCOUNT_SHARE: u32 = 16;
/// The largest share, so that it holds a whole bundle. The configuration is checked for it.
const LARGEST_SHARE: u32 = 4;

/// Bytes are counted in units of so many.
const UNIT: u64 = 1024;

type Accounts = Arc<Mutex<HashMap<AccountId, Arc<Semaphore>>>>;

/// The bytes that may be in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    all: Arc<Semaphore>,
    share: u32,
    accounts: Accounts,
}

/// Some of the bytes, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: Option<OwnedSemaphorePermit>,
    of_account: Option<OwnedSemaphorePermit>,
    account: AccountId,
    accounts: Accounts,
}

/// A sealed bundle that is on its way to its devbox; its bytes are in flight until it is dropped.
#[derive(Debug)]
pub struct Delivery {
    pub(super) bundle: Vec<u8>,
    pub(super) claim: SessionClaim,
    pub(super) _share: Share,
}

impl Delivery {
    /// Returns once the devbox has sent a newer request or its identity continues elsewhere. Each
    /// devbox has at most one bundle in flight, so that one that reads slowly cannot take its
    /// account's share from the others.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut claim = self.claim.clone();
        async move { claim.ended().await }
    }
}

impl Deref for Delivery {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bundle
    }
}

impl InFlight {
    /// `bytes` in all, and at least `bundle` for each account.
    pub(super) fn new(bytes: u64, bundle: u64) -> Self {
        let in_units = |bytes: u64| u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = in_units(bytes).clamp(ACCOUNT_SHARE, u32::MAX >> 3);
        let share = (units / ACCOUNT_SHARE).max(in_units(bundle)).min(units / LARGEST_SHARE);
        Self { all: Arc::new(Semaphore::new(units as usize)), share, accounts: Accounts::default() }
    }

    /// Waits for the account's turn: first among its own devboxes, then among all.
    pub(super) async fn take(&self, account: &AccountId, bytes: u64) -> Result<Share, Refusal> {
        let (mut share, own, units) = self.begin(account, bytes);
        share.of_account = Some(own.acquire_many_owned(units).await.map_err(Refusal::internal)?);
        let all = Arc::clone(&self.all).acquire_many_owned(units).await;
        share.all = Some(all.map_err(Refusal::internal)?);
        Ok(share)
    }

    /// As [`Self::take`], if that is possible without waiting.
    pub(super) fn take_now(&self, account: &AccountId, bytes: u64) -> Option<Share> {
        let (mut share, own, units) = self.begin(account, bytes);
        share.of_account = Some(own.try_acquire_many_owned(units).ok()?);
        share.all = Some(Arc::clone(&self.all).try_acquire_many_owned(units).ok()?);
        Some(share)
    }

    fn begin(&self, account: &AccountId, bytes: u64) -> (Share, Arc<Semaphore>, u32) {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.share);
        let own = self.of_account(account);
        let accounts = Arc::clone(&self.accounts);
        (Share { all: None, of_account: None, account: account.clone(), accounts }, own, units)
    }

    fn of_account(&self, account: &AccountId) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.share as usize));
        Arc::clone(accounts.entry(account.clone()).or_insert_with(new))
    }
}

impl Drop for Share {
    /// An account of which nothing is in flight is forgotten.
    fn drop(&mut self) {
        drop((self.all.take(), self.of_account.take()));
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.get(&self.account).is_some_and(|own| Arc::strong_count(own) == 1) {
            accounts.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_waits_for_itself_and_another_one_passes_it() {
        let in_flight = InFlight::new(400 * UNIT, 100 * UNIT);
        let busy = AccountId::new("acc_1");
        let other = AccountId::new("acc_2");
        let first = in_flight.take(&busy, 100 * UNIT).await.unwrap();
        let waiting = in_flight.take(&busy, 1);
        tokio::pin!(waiting);
        assert!(futures_ready(waiting.as_mut()).await.is_none());
        let passed = in_flight.take(&other, 100 * UNIT).await.unwrap();
        drop(first);
        let second = waiting.await.unwrap();
        drop((second, passed));
        assert!(in_flight.accounts.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn fifteen_accounts_together_leave_a_whole_bundle_for_the_next() {
        let limits = crate::config::Limits::default();
        let in_flight = InFlight::new(limits.bytes_in_flight, limits.bundle_bytes);
        let account = |number| AccountId::new(format!("acc_{number}"));
        let mut held = Vec::new();
        for number in 0..15 {
            held.extend(std::iter::from_fn(|| in_flight.take_now(&account(number), 1 << 20)));
        }
        assert!(in_flight.take_now(&account(15), limits.bundle_bytes).is_some());
    }

    #[tokio::test]
    async fn a_bundle_of_any_size_gets_its_turn() {
        let in_flight = InFlight::new(0, 0);
        in_flight.take(&AccountId::new("acc_1"), u64::MAX).await.unwrap();
    }

    /// Polls once.
    async fn futures_ready<F: Future + Unpin>(future: F) -> Option<F::Output> {
        let mut future = future;
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
