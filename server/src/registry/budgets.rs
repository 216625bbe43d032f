//! Refusals of what goes over a budget, by the budget's name.

use std::time::Duration;

use super::audit::Attempt;
use super::peer::Source;
use super::rate::RateLimiter;
use super::{DevboxPeer, Refusal, Registry};
use crate::config::{Limits, Rate};
use crate::crypto::TokenHash;
use crate::crypto::id::{AccountId, DevboxId};
use crate::store::{AuditRecord, Budget};

/// One devbox may use this fraction of its account's audit rows for deliveries: one part in so
/// many.
const DEVBOX_SHARE: u32 = 10;

/// Work that is limited by rate. Until a devbox is admitted, its requests count against their
/// source, so that copies of its identity and revoked certificates cannot use up the devbox's own
/// rates.
#[derive(Debug, Default)]
pub(super) struct Rates {
    requests: RateLimiter<TokenHash>,
    bundles: RateLimiter<Source>,
    renewal_requests: RateLimiter<Source>,
    renewals: RateLimiter<DevboxId>,
    devbox_rows: RateLimiter<DevboxId>,
    account_rows: RateLimiter<AccountId>,
}

impl Budget {
    /// The error's code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Secrets => "budget_secrets",
            Self::ValueBytes => "budget_value_bytes",
            Self::Devboxes => "budget_devboxes",
            Self::Tokens => "budget_tokens",
            Self::Bindings => "budget_bindings",
            Self::BundleBytes => "budget_bundle_bytes",
            Self::MetadataBytes => "budget_metadata_bytes",
            Self::Requests => "budget_requests",
            Self::Bundles => "budget_bundles",
            Self::Renewals => "budget_renewals",
        }
    }

    /// The budget that is used up, its size, and its setting in `[limits]`.
    fn described(self, limits: &Limits) -> (&'static str, u64, &'static str) {
        match self {
            Self::Secrets => ("secrets in this account", limits.secrets, "secrets_per_account"),
            Self::ValueBytes => {
                ("bytes of values in this account", limits.value_bytes, "value_bytes_per_account")
            }
            Self::Devboxes => ("running devboxes in this account", limits.devboxes, "devboxes_per_account"),
            Self::Tokens => ("usable API tokens in this account", limits.tokens, "tokens_per_account"),
            Self::Bindings => ("bindings in one devbox", limits.bindings, "bindings_per_devbox"),
            Self::BundleBytes => ("bytes in one devbox's bundle", limits.bundle_bytes, "bundle_bytes"),
            Self::MetadataBytes => {
                ("bytes of metadata in one devbox", limits.metadata_bytes, "metadata_bytes_per_devbox")
            }
            Self::Requests => {
                ("requests at once with one API token", limits.requests.burst.into(), "requests_per_second")
            }
            Self::Bundles => {
                ("bundle requests at once of one devbox", limits.bundles.burst.into(), "bundles_per_second")
            }
            Self::Renewals => {
                ("renewals at once of one devbox", limits.renewals.burst.into(), "renewals_per_hour")
            }
        }
    }
}

impl Registry {
    /// 400: the write would go over `budget`.
    pub(super) fn over_budget(&self, budget: Budget) -> Refusal {
        let (of, most, setting) = budget.described(&self.limits());
        let message = format!(
            "there may be at most {most} {of}: remove some, or ask the server's operator to raise {setting} in [limits]"
        );
        Refusal::invalid(budget.code(), message).of_budget(budget)
    }

    /// Whether `count` is within `budget`, of `most`.
    pub(super) fn check_budget(&self, used: usize, most: u64, budget: Budget) -> Result<(), Refusal> {
        if used as u64 > most { Err(self.over_budget(budget)) } else { Ok(()) }
    }

    /// 429 for a token that has been used more often than its rate, before it is looked for. A
    /// token that does not exist has no bucket here, so guesses take none.
    pub(super) fn check_exhausted(&self, token: TokenHash) -> Result<(), Refusal> {
        match self.0.rates.requests.wait(&token, self.limits().requests) {
            Duration::ZERO => Ok(()),
            wait => Err(self.too_often(Budget::Requests, wait)),
        }
    }

    /// 429 for a token that is used more often than its rate.
    pub(super) fn check_request_rate(&self, token: TokenHash) -> Result<(), Refusal> {
        let taken = self.0.rates.requests.take(&token, self.limits().requests);
        taken.map_err(|wait| self.too_often(Budget::Requests, wait))
    }

    /// 429 for a devbox that asks for bundles more often than its rate.
    pub(super) fn check_bundle_rate(&self, peer: &DevboxPeer) -> Result<(), Refusal> {
        let taken = self.0.rates.bundles.take(&peer.source(), self.limits().bundles);
        taken.map_err(|wait| self.too_often(Budget::Bundles, wait))
    }

    /// How long to delay a response so that the devbox's next request is within its rate.
    pub(super) fn bundle_pace(&self, peer: &DevboxPeer) -> Duration {
        self.0.rates.bundles.wait(&peer.source(), self.limits().bundles)
    }

    /// 429 for a certificate that asks for its renewal more often than the rate, before the
    /// certificate is looked up.
    pub(super) fn check_renewal_request_rate(&self, peer: &DevboxPeer) -> Result<(), Refusal> {
        let taken = self.0.rates.renewal_requests.take(&peer.source(), self.limits().renewals);
        taken.map_err(|wait| self.too_often(Budget::Renewals, wait))
    }

    /// 429 for an admitted devbox that renews its certificate more often than its rate, whichever
    /// certificate it shows.
    pub(super) fn check_renewal_rate(&self, devbox: &DevboxId) -> Result<(), Refusal> {
        let taken = self.0.rates.renewals.take(devbox, self.limits().renewals);
        taken.map_err(|wait| self.too_often(Budget::Renewals, wait))
    }

    fn too_often(&self, budget: Budget, wait: Duration) -> Refusal {
        let (of, most, setting) = budget.described(&self.limits());
        let message = format!(
            "at most {most} {of}, refilled at the rate {setting} of the server's [limits]: wait as Retry-After says"
        );
        Refusal::rate_limited(budget.code(), message, wait).of_budget(budget)
    }

    /// Audits a delivery, within a rate for each devbox and account. The first delivery over the
    /// rate is recorded as the first of several that are not listed, so that fetching cannot fill
    /// the disk.
    pub(super) async fn record_delivery(&self, attempt: Attempt, facts: String) -> Result<(), Refusal> {
        let Some(row) = self.delivery_row(attempt, facts) else { return Ok(()) };
        Ok(self.store().record(&row).await?)
    }

    fn delivery_row(&self, attempt: Attempt, facts: String) -> Option<AuditRecord> {
        let rows = self.limits().delivery_rows;
        let all = a_minute(rows);
        let share = a_minute(rows.div_ceil(DEVBOX_SHARE));
        let rates = &self.0.rates;
        let devbox = DevboxId::new(attempt.object.as_str());
        let listed = rates.devbox_rows.take(&devbox, share).is_ok()
            && attempt.account.as_ref().is_none_or(|account| rates.account_rows.take(account, all).is_ok());
        if listed {
            return Some(attempt.done().because(facts));
        }
        let first = self.0.audit_limiter.is_due(super::audit_limit::RefusalKey::of(&attempt, "unlisted"), 1);
        first.then(|| attempt.done().because(format!("{facts}; further ones of this minute are not listed")))
    }
}

fn a_minute(rows: u32) -> Rate {
    Rate::per(Duration::from_secs(60), rows, rows)
}
