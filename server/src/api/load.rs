//! The work that a listener has taken on, and the budgets in front of it: failed authentications by
//! address, requests by account, bytes of bodies. A refusal here costs no database query.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use devbox_secrets_proto::secret::SecretBytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::admission::{Admission, ConnectionSlot, Full};
use super::body::MAX_BODY_LEN;
use super::error::ApiError;
use super::listener::LimitSource;
use crate::config::{ListenerLimits, Rate};
use crate::crypto::{ApiToken, TokenHash};
use crate::registry::network::network;
use crate::registry::rate::RateLimiter;

/// Failures at once, in seconds of the rate.
const FAILURE_BURST_SECONDS: u32 = 10;
/// The most valid tokens that are remembered, by their hashes.
const MOST_KNOWN: usize = 16_384;

/// Most authentications at once of tokens that were not good before. Failures are counted after
/// they happen, so without this limit any number of simultaneous guesses would pass.
const MOST_STRANGERS: usize = 32;
/// The share of one address in the bytes of bodies. It may also take no more than it leaves free.
const ADDRESS_SHARE: usize = 8;

#[derive(Debug)]
pub(super) struct Load {
    limits: LimitSource,
    requests: Admission<String>,
    bodies: Mutex<Bodies>,
    failures: RateLimiter<IpAddr>,
    strangers: Semaphore,
    known: Mutex<HashSet<TokenHash>>,
}

/// Bytes of bodies in memory.
#[derive(Debug, Default)]
struct Bodies {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Default for Load {
    fn default() -> Self {
        Self::new(LimitSource::default())
    }
}

impl Load {
    pub(super) fn new(limits: LimitSource) -> Self {
        Self {
            limits,
            requests: Admission::default(),
            bodies: Mutex::default(),
            failures: RateLimiter::default(),
            strangers: Semaphore::new(MOST_STRANGERS),
            known: Mutex::default(),
        }
    }

    /// Waits for the slot of an authentication that may fail, unless `token` was valid before.
    /// Refuses as [`Self::check_failures`], also for failures during the wait.
    pub(super) async fn authenticating(
        &self,
        remote: Option<IpAddr>,
        token: Option<&SecretBytes>,
    ) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        if token.is_some_and(|token| self.is_known(token)) {
            return Ok(None);
        }
        self.check_failures(remote, token)?;
        let turn = self.strangers.acquire().await.map_err(|_| ApiError::internal())?;
        self.check_failures(remote, token)?;
        Ok(Some(turn))
    }

    /// A slot for a request in work, of `account` once that is known.
    pub(super) fn request(&self, account: Option<String>) -> Result<ConnectionSlot<String>, ApiError> {
        let limits = self.limits.load();
        self.requests.admit(account, limits.requests, limits.requests_per_account).map_err(
            |full| match full {
                Full::All => busy("max_requests", "the server has as many requests in work as it takes"),
                Full::Key => ApiError::retry_later(
                    StatusCode::TOO_MANY_REQUESTS,
                    "max_requests_per_account",
                    "the account has as many requests in work as it may",
                    Duration::from_secs(1),
                ),
            },
        )
    }

    /// Refuses `remote` while its address has too many failures, unless `token` was valid before,
    /// so that a guesser does not lock out others at its address. The token is still authenticated
    /// like any other.
    pub(super) fn check_failures(
        &self,
        remote: Option<IpAddr>,
        token: Option<&SecretBytes>,
    ) -> Result<(), ApiError> {
        let limits = self.limits.load();
        let Some(address) = counted(&limits, remote) else { return Ok(()) };
        let wait = self.failures.wait(&address, rate(&limits));
        if wait.is_zero() || token.is_some_and(|token| self.is_known(token)) {
            return Ok(());
        }
        Err(ApiError::retry_later(
            StatusCode::TOO_MANY_REQUESTS,
            "max_failures_per_second_per_address",
            "too many authentications from this address failed: wait, and check the token",
            wait,
        ))
    }

    /// An authentication of `remote` failed.
    pub(super) fn failed(&self, remote: Option<IpAddr>) {
        let limits = self.limits.load();
        if let Some(address) = counted(&limits, remote) {
            // Fails if other requests used the budget up meanwhile.
            let _ = self.failures.take(&address, rate(&limits));
        }
    }

    /// `token` is no longer valid: it was revoked, or has expired.
    pub(super) fn forget(&self, token: &SecretBytes) {
        if let Ok(hash) = ApiToken::hash_presented(token) {
            self.known().remove(&hash);
        }
    }

    /// `token` was valid.
    pub(super) fn succeeded(&self, token: &SecretBytes) {
        let Ok(hash) = ApiToken::hash_presented(token) else { return };
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            // A forgotten token only loses the exemption until its next use.
            known.clear();
        }
        known.insert(hash);
    }

    fn is_known(&self, token: &SecretBytes) -> bool {
        ApiToken::hash_presented(token).is_ok_and(|hash| self.known().contains(&hash))
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<TokenHash>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address for which failures of `remote` are counted. `None` if it is exempt.
fn counted(limits: &ListenerLimits, remote: Option<IpAddr>) -> Option<IpAddr> {
    remote.filter(|remote| !limits.exempt.has(*remote)).map(network)
}

fn rate(limits: &ListenerLimits) -> Rate {
    let count = limits.failures_per_second;
    Rate::per(Duration::from_secs(1), count, count.saturating_mul(FAILURE_BURST_SECONDS))
}

fn busy(code: &'static str, message: &'static str) -> ApiError {
    ApiError::retry_later(StatusCode::SERVICE_UNAVAILABLE, code, message, Duration::from_secs(1))
}

/// Memory for one body, given back on drop.
#[derive(Debug)]
pub(super) struct BodyMemory {
    load: Arc<Load>,
    address: Option<IpAddr>,
    bytes: usize,
}

impl BodyMemory {
    /// For a body that comes from `remote`.
    pub(super) fn new(load: Arc<Load>, remote: Option<IpAddr>) -> Self {
        let address = counted(&load.limits.load(), remote);
        Self { load, address, bytes: 0 }
    }

    /// Grows the share to `bytes`.
    ///
    /// # Errors
    /// 503 while other requests use all of it, or those of the address use its share.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let limit = self.load.limits.load().body_bytes;
        if !self.load.bodies().take(more, self.address, limit) {
            return Err(busy("max_body_bytes", "the server has as many bytes of requests as it takes"));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.load.bodies().give_back(self.bytes, self.address);
    }
}

impl Bodies {
    /// Whether `more` bytes were within `limit`, and within the share of `address`. A first body
    /// may take all that is free.
    fn take(&mut self, more: usize, address: Option<IpAddr>, limit: usize) -> bool {
        let free = limit.saturating_sub(self.total);
        let held = address.map_or(0, |address| self.by_address.get(&address).copied().unwrap_or(0));
        let share = (limit / ADDRESS_SHARE).max(MAX_BODY_LEN).min(free.max(MAX_BODY_LEN));
        if more > free || (address.is_some() && held + more > share) {
            return false;
        }
        self.total += more;
        if let Some(address) = address.filter(|_| more > 0) {
            self.by_address.insert(address, held + more);
        }
        true
    }

    fn give_back(&mut self, bytes: usize, address: Option<IpAddr>) {
        self.total -= bytes;
        let Some(address) = address else { return };
        if let Some(held) = self.by_address.get_mut(&address) {
            *held -= bytes;
            if *held == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::*;

    fn load(change: impl FnOnce(&mut ListenerLimits)) -> Arc<Load> {
        let mut limits = ListenerLimits::default();
        limits.exempt.loopback = false;
        change(&mut limits);
        Arc::new(Load::new(Arc::new(ArcSwap::from_pointee(limits))))
    }

    fn address(host: u8) -> Option<IpAddr> {
        Some([192, 0, 2, host].into())
    }

    #[test]
    fn bodies_over_the_budget_are_refused_until_others_have_gone() {
        let load = load(|limits| limits.body_bytes = 100);
        let mut first = BodyMemory::new(Arc::clone(&load), address(1));
        first.grow_to(60).unwrap();
        first.grow_to(80).unwrap();
        let mut second = BodyMemory::new(Arc::clone(&load), address(2));
        assert!(second.grow_to(21).is_err());
        drop(first);
        second.grow_to(100).unwrap();
    }

    #[test]
    fn the_bodies_of_one_address_leave_room_for_others() {
        let load = load(|limits| limits.body_bytes = 16 * MAX_BODY_LEN);
        let body = |host| {
            let mut memory = BodyMemory::new(Arc::clone(&load), address(host));
            memory.grow_to(MAX_BODY_LEN).map(|()| memory)
        };
        let held = [body(1).unwrap(), body(1).unwrap()];
        assert!(body(1).is_err());
        body(2).unwrap();
        drop(held);
        body(1).unwrap();
        assert!(load.bodies().by_address.is_empty() && load.bodies().total == 0);
    }

    #[test]
    fn twelve_addresses_together_leave_room_for_a_largest_body() {
        let load = load(|_| {});
        let body = |host| {
            let mut memory = BodyMemory::new(Arc::clone(&load), address(host));
            memory.grow_to(MAX_BODY_LEN).map(|()| memory).ok()
        };
        let held: Vec<_> = (1..=12).flat_map(|host| std::iter::from_fn(move || body(host))).collect();
        assert_eq!(held.len(), 255);
        assert!(body(13).is_some());
    }

    #[tokio::test]
    async fn guesses_that_arrive_together_are_refused_like_those_that_arrive_one_by_one() {
        let load = load(|limits| limits.failures_per_second = 1);
        let mut guesses = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let load = Arc::clone(&load);
            guesses.spawn(async move {
                let Ok(_turn) = load.authenticating(address(1), None).await else { return 0 };
                tokio::task::yield_now().await;
                load.failed(address(1));
                1
            });
        }
        let looks: usize = guesses.join_all().await.into_iter().sum();
        assert!(looks <= FAILURE_BURST_SECONDS as usize + MOST_STRANGERS, "{looks}");
        assert!(load.authenticating(address(2), None).await.is_ok());
    }

    #[test]
    fn an_account_with_too_many_requests_leaves_others_their_places() {
        let load = load(|limits| (limits.requests, limits.requests_per_account) = (3, 2));
        let greedy = || load.request(Some("acc_greedy".to_owned()));
        let held = [greedy().unwrap(), greedy().unwrap()];
        assert!(greedy().is_err());
        let other = load.request(Some("acc_other".to_owned())).unwrap();
        assert!(load.request(None).is_err(), "all places are taken");
        drop((held, other));
        assert!(greedy().is_ok());
    }
}
