//! The work that a listener has taken on, and the budgets in front of it: failed authentications by address, requests by account,
//! bytes of bodies. What is refused here has cost no look at the database.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use devbox_secrets_proto::secret::SecretBytes;

use super::admission::{Admission, Full, Place, network};
use super::error::ApiError;
use super::listener::LimitSource;
use crate::config::{ListenerLimits, Rate};
use crate::crypto::{ApiToken, TokenHash};
use crate::registry::rate::RateLimiter;

/// Failures at once, in seconds of the rate.
const FAILURE_BURST_SECONDS: u32 = 10;
/// Tokens that are remembered as good, by their hashes.
const MOST_KNOWN: usize = 16_384;

/// The work of one listener.
#[derive(Debug, Default)]
pub(super) struct Load {
    limits: LimitSource,
    requests: Admission<String>,
    body_bytes: AtomicUsize,
    failures: RateLimiter<IpAddr>,
    known: Mutex<HashSet<TokenHash>>,
}

impl Load {
    pub(super) fn new(limits: LimitSource) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A place for a request in work, of `account` once that is known.
    pub(super) fn request(&self, account: Option<String>) -> Result<Place<String>, ApiError> {
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

    /// Refuses `remote` while its address has too many failures, unless `token` was good before: who shares an address with a
    /// guesser goes on. It is only let through, and authenticated like any other.
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

    /// `token` is good no more: it was revoked, or has expired.
    pub(super) fn forget(&self, token: &SecretBytes) {
        if let Ok(hash) = ApiToken::hash_presented(token) {
            self.known().remove(&hash);
        }
    }

    /// `token` was good.
    pub(super) fn succeeded(&self, token: &SecretBytes) {
        let Ok(hash) = ApiToken::hash_presented(token) else { return };
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            // Forgotten tokens cost nothing but the privilege, until they are used again.
            known.clear();
        }
        known.insert(hash);
    }

    fn is_known(&self, token: &SecretBytes) -> bool {
        ApiToken::hash_presented(token).is_ok_and(|hash| self.known().contains(&hash))
    }

    fn known(&self) -> MutexGuard<'_, HashSet<TokenHash>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address that failures of `remote` are counted by, if they are.
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
    bytes: usize,
}

impl BodyMemory {
    pub(super) fn new(load: Arc<Load>) -> Self {
        Self { load, bytes: 0 }
    }

    /// Takes memory until there are `bytes` of it.
    ///
    /// # Errors
    /// 503 while the bodies of other requests have it all.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let limit = self.load.limits.load().body_bytes;
        let taken = self.load.body_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|held| *held <= limit)
        });
        taken.map_err(|_| busy("max_body_bytes", "the server has as many bytes of requests as it takes"))?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.load.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
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

    #[test]
    fn bodies_over_the_budget_are_refused_until_others_have_gone() {
        let load = load(|limits| limits.body_bytes = 100);
        let mut first = BodyMemory::new(Arc::clone(&load));
        first.grow_to(60).unwrap();
        first.grow_to(80).unwrap();
        let mut second = BodyMemory::new(Arc::clone(&load));
        assert!(second.grow_to(21).is_err());
        drop(first);
        second.grow_to(100).unwrap();
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
