//! The conditions that a rule can set on a process, one file for each subject.
//!
//! To add one, write a file with a [`Matcher`], list it in [`MATCHERS`], and give `RuleConfig` its key. If it needs
//! a new fact about processes, add that to `Facts`: the compiler then asks for it in explanations and in the audit.

mod executable;
mod ids;
mod unit;

pub(crate) use ids::Principal;
pub(super) use ids::exactly_uid;

use std::error::Error;
use std::fmt::{Debug, Display};
use std::sync::Arc;

use super::config::RuleConfig;
use super::mismatch::Mismatch;
use crate::access::peer::{Facts, Peer, Questions};

/// One condition of a rule. Its text is the one for people: `uid 1000`.
pub(super) trait Matcher: Debug + Display + Send + Sync {
    /// Whether the peer's ids meet the condition; `None` if ids do not settle it.
    fn is_met_by_ids(&self, peer: Peer) -> Option<bool>;

    fn ask(&self, questions: &mut Questions);

    /// `None` if the condition is met. A fact that is unknown meets no condition.
    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>>;
}

/// A condition as a rule keeps it. Policies are cloned, and conditions never change.
pub(super) type Condition = Arc<dyn Matcher>;

/// A mistake in a condition, and the remedy.
pub(super) type InvalidCondition = Box<dyn Error + Send + Sync>;

/// Reads one condition; `None` if the rule does not set it.
type Reader = fn(&RuleConfig) -> Option<Result<Condition, InvalidCondition>>;

enum Kind {
    /// It says whom the rule is for.
    Identifying(Reader),
    /// It narrows the rule down. It does not suffice for a rule.
    Narrowing(Reader),
}

/// Every matcher, in the order in which messages list them.
const MATCHERS: [Kind; 5] = [
    Kind::Identifying(ids::uid),
    Kind::Identifying(ids::gid),
    Kind::Identifying(unit::read),
    Kind::Narrowing(executable::path),
    Kind::Narrowing(executable::digest),
];

#[derive(Default)]
pub(super) struct Found {
    pub(super) conditions: Vec<Condition>,
    pub(super) errors: Vec<InvalidCondition>,
    /// Whether a condition, valid or not, says whom the rule is for.
    pub(super) identifies: bool,
}

pub(super) fn read(rule: &RuleConfig) -> Found {
    let mut found = Found::default();
    for kind in &MATCHERS {
        let (Kind::Identifying(read) | Kind::Narrowing(read)) = kind;
        match read(rule) {
            None => continue,
            Some(Ok(condition)) => found.conditions.push(condition),
            Some(Err(error)) => found.errors.push(error),
        }
        found.identifies |= matches!(kind, Kind::Identifying(_));
    }
    found
}
