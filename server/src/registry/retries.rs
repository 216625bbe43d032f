//! A write is done once, however often its caller retries: the caller's own id for the request
//! identifies a retry, which gets the first response for a day.
//!
//! The store keeps the row of the response and a fingerprint of method, path and body under a key
//! of the account ([`RequestKey`]). Refused requests are not kept: they changed no state, and a
//! retry is decided again.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{Caller, Refusal, Registry};
use crate::clock::now_ms;
use crate::store::{
    Action, Answered, AuditRecord, Devbox, JoinTokenIssue, Outcome, Receipt, RequestKey, Secret,
};

/// A caller's own id for one request, and a digest of the request, which may hold a value.
pub(crate) struct Retry {
    id: String,
    digest: Zeroizing<[u8; 32]>,
}

impl Retry {
    /// Of a request with the id `id`.
    pub(crate) fn new(id: String, method: &str, path: &str, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [method.as_bytes(), path.as_bytes(), body] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = Zeroizing::new([0; 32]);
        digest.copy_from_slice(context.finish().as_ref());
        Self { id, digest }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retry").field(&self.id).finish()
    }
}

impl Answered {
    fn object(&self) -> (&str, Option<&str>) {
        match self {
            Self::Secret(secret) => (secret.id.as_str(), Some(&secret.name)),
            Self::Devbox(devbox) => (devbox.id.as_str(), devbox.name.as_deref()),
            Self::JoinToken(issue) => (issue.devbox.as_str(), None),
        }
    }
}

macro_rules! answers_of_one_kind {
    ($($kind:ident => $row:ty),*) => {$(
        impl TryFrom<Answered> for $row {
            type Error = Refusal;

            fn try_from(answer: Answered) -> Result<Self, Refusal> {
                match answer {
                    Answered::$kind(row) => Ok(row),
                    // The fingerprint covers the path, so that the answer is of the path's kind.
                    _ => Err(Refusal::internal("a receipt holds the answer to another request")),
                }
            }
        }
    )*};
}

answers_of_one_kind!(Secret => Secret, Devbox => Devbox, JoinToken => JoinTokenIssue);

impl Registry {
    /// Does `write`, or returns its first result. `write` passes [`Self::request_key`] on to the
    /// store.
    pub(super) async fn once<T: TryFrom<Answered, Error = Refusal>>(
        &self,
        caller: &Caller,
        action: Action,
        write: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        if let Some(answer) = self.answered(caller, action).await? {
            return answer.try_into();
        }
        match write.await {
            // A concurrent retry of the same request may have won, and so have caused the refusal.
            Err(refusal) => match self.answered(caller, action).await? {
                Some(answer) => answer.try_into(),
                None => Err(refusal),
            },
            done => done,
        }
    }

    /// The key under which the store keeps the write. `None` if the request has no id.
    pub(super) async fn request_key(&self, caller: &Caller) -> Result<Option<RequestKey>, Refusal> {
        let Some(retry) = caller.retry() else { return Ok(None) };
        let fingerprint = self.account_key(caller).await?.fingerprint(&retry.digest);
        Ok(Some(RequestKey { id: retry.id.clone(), fingerprint }))
    }

    /// The first response, if there is one. If the caller lacks the capability, the write itself
    /// refuses it.
    async fn answered(&self, caller: &Caller, action: Action) -> Result<Option<Answered>, Refusal> {
        let Some(key) = self.request_key(caller).await? else { return Ok(None) };
        if caller.check_devbox_capability().is_err() {
            return Ok(None);
        }
        match self.store().receipt(caller.account(), &key.id, now_ms()).await? {
            Some(receipt) => self.replay(caller, action, &key, receipt).await.map(Some),
            None => Ok(None),
        }
    }

    async fn replay(
        &self,
        caller: &Caller,
        action: Action,
        key: &RequestKey,
        receipt: Receipt,
    ) -> Result<Answered, Refusal> {
        let (object, name) = receipt.answer.object();
        if verify_slices_are_equal(&receipt.fingerprint, &key.fingerprint).is_err() {
            return self.refuse(caller.attempt(action, ""), reused_id()).await;
        }
        let row = AuditRecord { outcome: Outcome::Replayed, ..caller.done(action, object) };
        let row = AuditRecord { object_name: name.map(str::to_owned), ..row };
        self.store().record(&row).await?;
        Ok(receipt.answer)
    }
}

fn reused_id() -> Refusal {
    Refusal::invalid(
        "request_id_reused",
        "the x-request-id belongs to another request of the last 24 hours: give each request an id of its own, and the \
         same one only to its retries",
    )
}
