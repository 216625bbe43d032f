//! The machine and connection on which each devbox's identity is in use, for
//! [`super::clone_detection`].
//!
//! Sessions are kept in memory: after a restart of the server, the first machine to come keeps the
//! identity. A session is in use for as long as the connection of its newest request is open, so no
//! time-out has to be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::clone_detection::{Elsewhere, LastUse, Link, in_use, judge};
use super::{DevboxPeer, Refusal, Registry};
use crate::clock::now_ms;
use crate::crypto::id::{AccountId, DevboxId};
use crate::store::{Action, AdmissionState, AuditRecord, TimeMs};

/// The number of sessions from which those with an expired certificate are removed.
const FIRST_SWEEP: usize = 1024;

/// The sessions of all devboxes, at most one each.
#[derive(Debug)]
pub(super) struct IdentitySessions(Mutex<Table>);

#[derive(Debug)]
struct Table {
    sessions: HashMap<DevboxId, IdentitySession>,
    sweep_at: usize,
    admitting: HashMap<DevboxId, Admissions>,
}

#[derive(Debug, Default)]
struct Admissions {
    requests: usize,
    move_count: MoveCount,
}

/// How often one devbox's identity was released to any machine since the first request that is
/// being admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MoveCount(u64);

/// One request being admitted. While it lives, moves of its devbox's identity are counted. Each
/// devbox has its own count, so that no other devbox's enrolment or shutdown makes this request
/// start over.
#[derive(Debug)]
pub(super) struct Admitting<'p> {
    sessions: &'p IdentitySessions,
    devbox: DevboxId,
}

impl Admitting<'_> {
    /// Now.
    pub(super) fn move_count(&self) -> MoveCount {
        self.sessions
            .table()
            .admitting
            .get(&self.devbox)
            .map_or_else(MoveCount::default, |all| all.move_count)
    }
}

impl Drop for Admitting<'_> {
    fn drop(&mut self) {
        let admitting = &mut self.sessions.table().admitting;
        let Some(admissions) = admitting.get_mut(&self.devbox) else { return };
        admissions.requests -= 1;
        if admissions.requests == 0 {
            admitting.remove(&self.devbox);
        }
    }
}

#[derive(Debug)]
struct IdentitySession {
    known: LastUse,
    /// Alive while the connection of the newest request is open.
    connection: Weak<()>,
    /// The certificate's expiry: afterwards only a newer certificate can use this identity.
    certificate_end_ms: TimeMs,
    /// Dropped with the session, which ends the claim of its request.
    _claim: watch::Sender<()>,
}

impl IdentitySession {
    fn is_in_use(&self) -> bool {
        self.connection.strong_count() > 0
    }
}

/// A request's right to be answered, until the identity continues elsewhere or the same or a later
/// step arrives.
#[derive(Debug, Clone)]
pub(super) struct SessionClaim(watch::Receiver<()>);

impl SessionClaim {
    /// Returns once the claim has ended.
    pub(super) async fn ended(&mut self) {
        // The sender never sends; the loop ends when it is dropped.
        while self.0.changed().await.is_ok() {}
    }

    /// # Errors
    /// 403 if the claim has ended. That alone does not prove a copy, so it is not audited: a client
    /// that is still there sends a new request, whose step decides.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.0.has_changed().is_err() { Err(in_use()) } else { Ok(()) }
    }
}

impl Default for IdentitySessions {
    fn default() -> Self {
        let sessions = HashMap::new();
        let admitting = HashMap::new();
        Self(Mutex::new(Table { sessions, sweep_at: FIRST_SWEEP, admitting }))
    }
}

impl IdentitySessions {
    /// Counts moves of `devbox` from now on.
    pub(super) fn admitting(&self, devbox: &DevboxId) -> Admitting<'_> {
        self.table().admitting.entry(devbox.clone()).or_default().requests += 1;
        Admitting { sessions: self, devbox: devbox.clone() }
    }

    /// The last use of the peer's identity, if that is on another connection from another address.
    fn in_use_elsewhere(&self, peer: &DevboxPeer) -> Option<LastUse> {
        let table = self.table();
        let session = table.sessions.get(peer.devbox_id()).filter(|session| session.is_in_use())?;
        let is_elsewhere =
            !session.connection.ptr_eq(peer.connection()) && session.known.remote != peer.remote();
        is_elsewhere.then_some(session.known)
    }

    /// Claims the session for a request of `peer` and ends the claim of the devbox's previous
    /// request: each devbox has at most one held request. `None` if the identity has moved since
    /// `admitted`, because that may have revoked the peer's certificate. An error has the reason
    /// and the address where the identity is in use.
    fn take(
        &self,
        peer: &DevboxPeer,
        link: Link,
        certificate_end_ms: TimeMs,
        admitted: MoveCount,
    ) -> Result<Option<SessionClaim>, (Elsewhere, Option<IpAddr>)> {
        let mut table = self.table();
        let move_count =
            table.admitting.get(peer.devbox_id()).map_or_else(MoveCount::default, |all| all.move_count);
        // The identity has moved since this request was admitted, so it has to be admitted again.
        if move_count != admitted {
            return Ok(None);
        }
        let new = LastUse { link, remote: peer.remote() };
        let old = table.sessions.get(peer.devbox_id());
        let in_use = old.is_some_and(IdentitySession::is_in_use);
        judge(old.map(|session| &session.known), in_use, &new)
            .map_err(|elsewhere| (elsewhere, old.and_then(|session| session.known.remote)))?;
        let claim = watch::Sender::default();
        let receiver = claim.subscribe();
        let session = IdentitySession {
            known: new,
            connection: peer.connection().clone(),
            certificate_end_ms,
            _claim: claim,
        };
        table.insert(peer.devbox_id(), session);
        Ok(Some(SessionClaim(receiver)))
    }

    /// Releases the identity: the next machine that uses it keeps it.
    pub(super) fn forget(&self, devbox: &DevboxId) {
        let mut table = self.table();
        if let Some(admissions) = table.admitting.get_mut(devbox) {
            admissions.move_count.0 += 1;
        }
        table.sessions.remove(devbox);
    }

    /// Releases the session of a refused peer, so that it blocks no other machine.
    pub(super) fn leave(&self, peer: &DevboxPeer) {
        let mut table = self.table();
        if table
            .sessions
            .get(peer.devbox_id())
            .is_some_and(|session| session.connection.ptr_eq(peer.connection()))
        {
            table.sessions.remove(peer.devbox_id());
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().sessions.len()
    }

    #[cfg(test)]
    pub(super) fn admitting_count(&self) -> usize {
        self.table().admitting.len()
    }

    /// A panic while the lock was held leaves the table whole: nothing that can panic is done under
    /// it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, devbox: &DevboxId, session: IdentitySession) {
        if self.sessions.insert(devbox.clone(), session).is_none() && self.sessions.len() >= self.sweep_at {
            self.sweep(now_ms());
        }
    }

    fn sweep(&mut self, now_ms: TimeMs) {
        self.sessions.retain(|_, session| session.is_in_use() || session.certificate_end_ms > now_ms);
        // The threshold doubles with the table, so the cost of a sweep is amortised over the
        // inserts.
        self.sweep_at = FIRST_SWEEP.max(2 * self.sessions.len());
    }
}

impl Registry {
    /// Claims the session for an admitted bundle request. `None` if the identity moved since
    /// `admitted`: admit the peer again.
    ///
    /// # Errors
    /// 403 if the identity is in use elsewhere. Both machines are audited: the refused one, and the
    /// one that keeps the identity.
    pub(super) async fn claim_session(
        &self,
        peer: &DevboxPeer,
        link: Link,
        admission: &AdmissionState,
        admitted: MoveCount,
    ) -> Result<Option<SessionClaim>, Refusal> {
        let end = admission.certificate_not_after_time_ms.unwrap_or_default();
        match self.0.sessions.take(peer, link, end, admitted) {
            Ok(claim) => Ok(claim),
            Err((elsewhere, goes_on)) => {
                let refusal = elsewhere.refusal();
                self.refuse_copy(peer, Action::DevboxBundle, &admission.account, &refusal, goes_on).await;
                Err(refusal)
            }
        }
    }

    /// Refuses the renewal of an identity that another machine uses. Otherwise a stolen certificate
    /// could be renewed unnoticed.
    ///
    /// # Errors
    /// 403, audited as a copy.
    pub(super) async fn refuse_renewal_elsewhere(
        &self,
        peer: &DevboxPeer,
        account: &AccountId,
    ) -> Result<(), Refusal> {
        let Some(known) = self.0.sessions.in_use_elsewhere(peer) else { return Ok(()) };
        let refusal = in_use();
        self.refuse_copy(peer, Action::DevboxRenew, account, &refusal, known.remote).await;
        Err(refusal)
    }

    /// A refused machine retries until the identity is free, so both machines are audited once a
    /// minute only.
    async fn refuse_copy(
        &self,
        peer: &DevboxPeer,
        action: Action,
        account: &AccountId,
        refusal: &Refusal,
        goes_on: Option<IpAddr>,
    ) {
        self.metrics().clone_refused();
        let attempt = |action| peer.attempt(Some(account.clone()), action);
        let refused = attempt(action);
        // A copy that keeps asking must not fill the log and the audit.
        if !self.is_due(&refused, refusal, 1) {
            return;
        }
        let code = refusal.code();
        let remote = peer.remote();
        tracing::warn!(devbox = %peer.devbox_id(), code, refused = ?remote, ?goes_on, "one identity in two places");
        let from = remote.map_or_else(|| "no address".to_owned(), |remote| remote.to_string());
        let seen = attempt(Action::DevboxClone).done().because(format!("{code} for {from}"));
        self.try_record(&AuditRecord { remote: goes_on, ..seen }).await;
        self.try_record(&refused.refused(code)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn session(connection: &Arc<()>, certificate_end_ms: TimeMs) -> IdentitySession {
        let link = Link::parse(&devbox_secrets_proto::devbox::Continuity {
            boot: "b".repeat(64),
            after: None,
            step: "5".repeat(32),
        });
        let known = LastUse { link: link.unwrap(), remote: None };
        IdentitySession {
            known,
            connection: Arc::downgrade(connection),
            certificate_end_ms,
            _claim: watch::Sender::default(),
        }
    }

    #[test]
    fn places_whose_certificate_and_connection_have_ended_are_forgotten() {
        let sessions = IdentitySessions::default();
        let lives = Arc::new(());
        let ended = Arc::new(());
        let mut table = sessions.table();
        table.insert(&DevboxId::new("dbx_valid"), session(&ended, TimeMs::MAX));
        table.insert(&DevboxId::new("dbx_connected"), session(&lives, 0));
        for number in 0..3 * FIRST_SWEEP {
            table.insert(&DevboxId::new(format!("dbx_{number}")), session(&Arc::default(), 0));
        }
        assert!(table.sessions.len() < 2 * FIRST_SWEEP, "{}", table.sessions.len());
        drop(ended);
        table.sweep(now_ms());
        let mut left: Vec<&str> = table.sessions.keys().map(DevboxId::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["dbx_connected", "dbx_valid"]);
    }
}
