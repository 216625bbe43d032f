//! Deletes rows that ended long ago, in the background, so that a state that is served for years
//! stays small enough to start.

use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::audit::upkeep_record;
use super::{Refusal, Registry};
use crate::clock::{milliseconds, now_ms};
use crate::config::RetentionConfig;
use crate::store::{Action, Actor, AuditEntry, AuditPage, Ended, RECEIPT_LIFETIME_MS, StoreError, TimeMs};

/// The delay from the start to the first run: reconnecting devboxes come first.
const FIRST_LOOK: Duration = Duration::from_secs(5 * 60);

const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// How many rows of the audit are read at once.
const PAGE: u32 = 512;

const DAY_MS: TimeMs = 86_400_000;

impl Registry {
    /// Deletes expired rows from time to time, as `keep` says. Never returns.
    pub(crate) async fn retain(&self, keep: &RetentionConfig) {
        let mut looks = interval_at(Instant::now() + FIRST_LOOK, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Err(error) = self.prune(keep).await {
                // The next run continues with the rest.
                tracing::warn!(error = &error as &dyn std::error::Error, "old rows could not be deleted");
            }
        }
    }

    /// Deletes the rows that have expired now, as `keep` says.
    ///
    /// # Errors
    /// [`StoreError`]; rows deleted before the failure stay deleted.
    pub(crate) async fn prune(&self, keep: &RetentionConfig) -> Result<(), StoreError> {
        let now_ms = now_ms();
        let mut deleted = Vec::new();
        for what in Ended::ALL {
            let count = self.delete_all(what, now_ms - kept_ms(keep, what)).await?;
            if count > 0 {
                deleted.push(format!("{count} rows of {}", what.as_str()));
            }
        }
        if !deleted.is_empty() {
            let audit = upkeep_record(&Actor::Server, Action::StatePrune, "state");
            self.store().record(&audit.because(deleted.join(", "))).await?;
        }
        if let Some(kept) = keep.audit {
            // Whole days, so that a day leaves one row about it.
            let before_ms = (now_ms - milliseconds(kept)).div_euclid(DAY_MS) * DAY_MS;
            let sequence = self.find_audit_floor(before_ms).await?;
            self.prune_audit_rows(&Actor::Server, sequence).await?;
        }
        while self.store().shrink().await? {}
        self.log_audit_head().await
    }

    /// Deletes the audit's rows before the number `sequence`; returns how many.
    ///
    /// # Errors
    /// 400 if there is no such row; 500.
    pub(crate) async fn prune_audit(&self, actor: &Actor, sequence: i64) -> Result<u64, Refusal> {
        let newest = self.store().audit(None, 1).await?.first().map_or(0, |newest| newest.sequence);
        if sequence > newest {
            let message = format!("the audit has no row {sequence}: its newest is {newest}");
            return Err(Refusal::invalid("unknown_row", message));
        }
        Ok(self.prune_audit_rows(actor, sequence).await?)
    }

    /// The number of the first row of the audit from `before_ms` on.
    pub(crate) async fn audit_row_at(&self, before_ms: TimeMs) -> Result<i64, Refusal> {
        Ok(self.find_audit_floor(before_ms).await?)
    }

    async fn prune_audit_rows(&self, actor: &Actor, sequence: i64) -> Result<u64, StoreError> {
        let audit = upkeep_record(actor, Action::AuditPrune, &sequence.to_string());
        self.store().raise_audit_floor(sequence, &audit).await?;
        // Also deletes the rest of an interrupted call.
        let mut deleted = 0;
        loop {
            match self.store().delete_audit_beneath_floor().await? {
                0 => return Ok(deleted),
                count => deleted += count,
            }
        }
    }

    /// The number of the first row to keep. A row written while the clock was ahead keeps all later
    /// rows until an operator prunes by number, because guessing would let a wrong clock delete the
    /// audit.
    async fn find_audit_floor(&self, before_ms: TimeMs) -> Result<i64, StoreError> {
        let mut floor = self.store().audit_floor().await?.sequence;
        loop {
            let page = self.store().audit_page(None, AuditPage::OldestAfter(floor - 1), PAGE).await?;
            let is_kept = |entry: &&AuditEntry| entry.time_ms >= before_ms;
            match (page.iter().find(is_kept), page.last()) {
                (Some(kept), _) => return Ok(kept.sequence),
                (None, Some(last)) => floor = last.sequence + 1,
                (None, None) => return Ok(floor),
            }
        }
    }

    async fn delete_all(&self, what: Ended, before_ms: TimeMs) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            match self.store().delete_ended(what, before_ms).await? {
                0 => return Ok(deleted),
                count => deleted += count,
            }
        }
    }

    /// Logs the newest row's hash. The log is kept elsewhere, so an audit that is rewritten later
    /// does not match it.
    async fn log_audit_head(&self) -> Result<(), StoreError> {
        if let Some(newest) = self.store().audit(None, 1).await?.first() {
            let hash = newest.hash.as_deref().unwrap_or_default();
            tracing::info!(sequence = newest.sequence, hash, "head of the audit");
        }
        Ok(())
    }

    /// Records that the server started or stopped. A failure is only logged, because a server with
    /// a full disk is still of use.
    pub(crate) async fn note_server(&self, action: Action, facts: &str) {
        let audit = upkeep_record(&Actor::Server, action, "server").because(facts);
        let noted = match self.store().record(&audit).await {
            Ok(()) => self.log_audit_head().await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::error!(error = &error as &dyn std::error::Error, "a start or stop could not be audited");
        }
    }
}

/// For the audit: the version, and a digest by which a changed configuration shows.
pub(crate) fn server_facts(config: &impl std::fmt::Debug) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{config:?}").as_bytes());
    format!("version {}, configuration {}", env!("CARGO_PKG_VERSION"), HEXLOWER.encode(&digest.as_ref()[..8]))
}

fn kept_ms(keep: &RetentionConfig, what: Ended) -> TimeMs {
    match what {
        Ended::Certificates => milliseconds(keep.certificates),
        Ended::JoinTokens => milliseconds(keep.join_tokens),
        Ended::Devboxes => milliseconds(keep.devboxes),
        Ended::Receipts => RECEIPT_LIFETIME_MS,
    }
}
