//! What policy says of one launch: whom it is about, and why it grants nothing.

use std::sync::Arc;

use devbox_launch_proto::ErrorCode;

use super::refusal::Refusal;
use super::selection::{Selection, select};
use crate::access::peer::Facts;
use crate::access::policy::Policy;
use crate::memory::Generation;

/// A policy and a process that at least one of its rules is about.
pub(super) struct Decision {
    policy: Arc<Policy>,
    facts: Facts,
}

impl Decision {
    /// Decides whether the process may have anything.
    ///
    /// # Errors
    /// A [`Refusal`] that says which rule would have to exist, and the operator why none of those that do is about it.
    pub(super) fn new(policy: Arc<Policy>, facts: Facts) -> Result<Self, Refusal> {
        let decision = Self { policy, facts };
        match decision.policy.grants(&decision.facts) {
            Some(_) => Ok(decision),
            None => Err(decision.reasoned(Refusal::no_rule(decision.facts.peer))),
        }
    }

    /// Decides which variables a request gets.
    ///
    /// # Errors
    /// A [`Refusal`]; a denial has its reasons for the operator.
    pub(super) fn select<'a>(
        &self,
        generation: &Generation,
        request: &'a [u8],
    ) -> Result<Selection<'a>, Refusal> {
        let peer = self.facts.peer;
        let grants = self.policy.grants(&self.facts).ok_or_else(|| Refusal::no_rule(peer))?;
        select(generation, &grants, peer, request).map_err(|refusal| self.reasoned(refusal))
    }

    /// The rules that decide.
    pub(super) fn rules(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    fn reasoned(&self, refusal: Refusal) -> Refusal {
        if refusal.code != ErrorCode::Denied {
            return refusal;
        }
        let reasons = self.policy.why_not(&self.facts, refusal.name());
        refusal.with_reasons(reasons)
    }
}
