//! Who may have what: rules match what the kernel says of a process, and grant patterns of environment names.
//!
//! No rule, no secret. Rules only add to each other. What is not known of a process matches no rule that asks for it. A name
//! that steers loaders, shells or interpreters ([`is_guarded`]) is granted only by a rule that names it exactly.
//!
//! A decision takes two steps: [`Policy::questions`] says what must be looked up about a peer, which is nothing where user
//! and group settle it, and [`Policy::grants`] decides from the answers. [`Explanation`] is the same for people.

mod config;
mod explain;
mod matchers;
mod mismatch;
mod rule;
pub mod table;
#[cfg(test)]
mod tests;

pub use config::{Problem, RuleConfig, RuleMistake};
pub use devbox_secrets_proto::guarded::is_guarded;
pub use explain::{ExplainedProcess, ExplainedRule, ExplainedVariable, Explanation};
pub use matchers::Principal;
pub use rule::{Rule, RuleLabel};

use std::fmt;

use crate::access::glob::Glob;
use crate::access::peer::{Facts, Peer, Questions, UnitPattern};

/// Most rules that [`Policy::why_not`] gives a reason for, and [`Policy::about`] names.
const MAX_REASONS: usize = 16;

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// What the rules grant one process: at least one is about it.
#[derive(Debug, Clone)]
pub struct Grants<'a> {
    rules: Vec<&'a Rule>,
}

/// How rules relate to a user, by its numbers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// No rule could be about it.
    None,
    /// A rule could, but only one that names no user and no group: it could be about everybody.
    Possible,
    /// A rule names its uid or its gid.
    Named,
}

impl Policy {
    /// What holds without a configuration: `uid` may have every variable (but no guarded one).
    #[must_use]
    pub fn own_uid_only(uid: u32) -> Self {
        let allow = Glob::new("*").into_iter().collect();
        Self { rules: vec![Rule { name: None, conditions: vec![matchers::exactly_uid(uid)], allow }] }
    }

    /// The rules, for `check` and `status`.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What must be known of `peer` beyond its numbers; none where they settle it.
    #[must_use]
    pub fn questions(&self, peer: Peer) -> Option<Questions> {
        let mut questions = Questions::default();
        for rule in self.rules.iter().filter(|rule| rule.relation(peer) != Relation::None) {
            rule.ask(&mut questions);
        }
        (!questions.is_empty()).then_some(questions)
    }

    /// How the rules relate to the user that `peer` is.
    #[must_use]
    pub fn relation(&self, peer: Peer) -> Relation {
        let mut relation = Relation::None;
        for rule in &self.rules {
            match rule.relation(peer) {
                Relation::Named => return Relation::Named,
                Relation::Possible => relation = Relation::Possible,
                Relation::None => {}
            }
        }
        relation
    }

    /// Everything about a process that any rule asks for, and its unit.
    #[must_use]
    pub fn all_questions(&self) -> Questions {
        let mut questions = Questions::default();
        self.rules.iter().for_each(|rule| rule.ask(&mut questions));
        questions.any_executable = !questions.executables.is_empty();
        questions.units = vec![UnitPattern::any()];
        questions
    }

    /// Whether any rule names an executable: other users' can be seen with `CAP_SYS_PTRACE` only, and from no Landlock domain.
    #[must_use]
    pub fn names_executables(&self) -> bool {
        self.all_questions().any_executable
    }

    /// What a process may have; none where no rule is about it.
    #[must_use]
    pub fn grants(&self, facts: &Facts) -> Option<Grants<'_>> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.applies_to(facts)).collect();
        (!rules.is_empty()).then_some(Grants { rules })
    }

    /// For the audit: the rules that are about a process, by number and name.
    #[must_use]
    pub fn about<'a>(&'a self, facts: &'a Facts) -> impl fmt::Display + 'a {
        let rules = self.rules.iter().enumerate();
        let about = rules.filter(|(_, rule)| rule.applies_to(facts)).take(MAX_REASONS);
        Labels(about.map(|(index, rule)| rule.label(index)))
    }

    /// For the operator: why each rule grants nothing, or not `name`, to a process. One line.
    #[must_use]
    pub fn why_not(&self, facts: &Facts, name: Option<&str>) -> String {
        if self.rules.is_empty() {
            return "there is no rule".to_owned();
        }
        let reason = |(index, rule): (usize, &Rule)| {
            let why = match rule.mismatches(facts).next() {
                Some(mismatch) => mismatch.to_string(),
                None => rule.why_not_granted(name),
            };
            format!("rule {}: {why}", rule.label(index))
        };
        let mut reasons: Vec<String> = self.rules.iter().enumerate().take(MAX_REASONS).map(reason).collect();
        if let Some(more) = self.rules.len().checked_sub(MAX_REASONS + 1) {
            reasons.push(format!("and {} more", more + 1));
        }
        reasons.join("; ")
    }
}

/// Rules, one after the other.
struct Labels<I>(I);

impl<'a, I: Iterator<Item = RuleLabel<'a>> + Clone> fmt::Display for Labels<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.clone().enumerate() {
            write!(f, "{}{label}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Grants<'_> {
    /// Whether a variable of this name may be injected.
    #[must_use]
    pub fn allows(&self, name: &[u8]) -> bool {
        let guarded = is_guarded(name);
        self.rules.iter().any(|rule| rule.grants(name, guarded))
    }

    /// Whether every name but the guarded ones is granted.
    #[must_use]
    pub fn everything(&self) -> bool {
        self.rules.iter().any(|rule| rule.grants_everything())
    }
}
