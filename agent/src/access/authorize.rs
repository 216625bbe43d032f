//! Decides, once for a process, which rules apply to it and therefore which variables it may have.
//!
//! A [`Decision`] keeps the policy that it was made by and the rules that apply, so that nothing after it matches rules
//! again: not the selection of variables, not the audit. It holds if rules are reloaded meanwhile.

use std::fmt;
use std::sync::Arc;

use devbox_secrets_proto::guarded::is_guarded;

use super::peer::{Examiner, Facts, Learned, Peer, Process};
use super::policy::{Policy, Rule, RuleLabel};

/// Most rules that a message names or gives a reason for: there may be thousands, and the audit drops events that are too
/// long.
const MAX_NAMED: usize = 16;

#[derive(Debug)]
pub(crate) struct Decision {
    policy: Arc<Policy>,
    facts: Facts,
    /// Positions in the policy, in ascending order.
    applying: Vec<usize>,
}

/// Authorizes the peer of a connection. `process` looks it up; it is called only if a rule needs more than the peer's ids.
pub(crate) async fn authorize(
    policy: Arc<Policy>,
    examiner: &Examiner,
    peer: Peer,
    process: impl FnOnce() -> Learned<Process>,
) -> Decision {
    let facts = match policy.questions(peer) {
        None => Facts::of(peer),
        Some(questions) => match process() {
            Ok(process) => examiner.examine(peer, process, questions).await,
            // Fail closed: an unknown fact meets no condition.
            Err(obstacle) => Facts::unknown(peer, obstacle),
        },
    };
    Decision::new(policy, facts)
}

/// The decision about the process with the ids of `peer`, for explanations only: the ids are believed, and everything that
/// any rule asks for is looked up.
pub(crate) async fn authorize_unverified(policy: Arc<Policy>, examiner: &Examiner, peer: Peer) -> Decision {
    let process = Process::to_explain(peer.pid);
    let facts = examiner.examine(peer, process, policy.all_questions()).await;
    Decision::new(policy, facts)
}

impl Decision {
    pub(super) fn new(policy: Arc<Policy>, facts: Facts) -> Self {
        // Matched once: the selection and the audit read the result.
        let applying = policy.applying_to(&facts).collect();
        Self { policy, facts, applying }
    }

    #[cfg(test)]
    pub(crate) fn about_ids(policy: &Policy, peer: Peer) -> Self {
        Self::new(Arc::new(policy.clone()), Facts::of(peer))
    }

    #[must_use]
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    #[must_use]
    pub(crate) fn peer(&self) -> Peer {
        self.facts.peer
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    #[must_use]
    pub(crate) fn is_denial(&self) -> bool {
        self.applying.is_empty()
    }

    #[must_use]
    pub(crate) fn allows(&self, name: &[u8]) -> bool {
        self.granting(name).is_some()
    }

    /// Whether every name except guarded ones is granted.
    #[must_use]
    pub(crate) fn allows_everything(&self) -> bool {
        self.applying().any(|(_, rule)| rule.grants_everything())
    }

    pub(super) fn granting(&self, name: &[u8]) -> Option<RuleLabel<'_>> {
        let guarded = is_guarded(name);
        let mut applying = self.applying();
        let (index, rule) = applying.find(|(_, rule)| rule.grants(name, guarded))?;
        Some(rule.label(index))
    }

    /// The rules that apply, by number and name, for the audit.
    #[must_use]
    pub(crate) fn rules(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            for (position, (index, rule)) in self.applying().take(MAX_NAMED).enumerate() {
                let separator = if position > 0 { ", " } else { "" };
                write!(f, "{separator}{}", rule.label(index))?;
            }
            Ok(())
        })
    }

    /// Why each rule grants the process nothing, or not `name`. One line for the operator: the process must not learn of
    /// rules for others.
    #[must_use]
    pub(crate) fn why_not(&self, name: Option<&str>) -> String {
        let rules = self.policy.rules();
        if rules.is_empty() {
            return "there is no rule".to_owned();
        }
        let reason = |(index, rule): (usize, &Rule)| {
            let why = match rule.mismatches(&self.facts).next() {
                Some(mismatch) => mismatch.to_string(),
                None => rule.why_not_granted(name),
            };
            format!("rule {}: {why}", rule.label(index))
        };
        let mut reasons: Vec<String> = rules.iter().enumerate().take(MAX_NAMED).map(reason).collect();
        if let Some(more) = rules.len().checked_sub(MAX_NAMED + 1) {
            reasons.push(format!("and {} more", more + 1));
        }
        reasons.join("; ")
    }

    fn applying(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.applying.iter().map(|index| (*index, &self.policy.rules()[*index]))
    }
}
