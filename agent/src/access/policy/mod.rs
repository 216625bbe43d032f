//! The rules: conditions on processes, and the names of the variables that each grants.
//!
//! No rule, no secret. Rules only add to each other. A fact about a process that is unknown meets no condition. A guarded
//! name ([`is_guarded`]: it steers loaders, shells or interpreters) is granted only by a rule that lists exactly it.
//!
//! - `config`: a `[[rule]]` of the configuration file; `matchers`: its conditions, one file for each subject;
//! - [`credentials`]: a `[[credential]]`, for systemd units;
//! - [`table`]: rules for people.

mod config;
pub mod credentials;
mod matchers;
mod mismatch;
mod rule;
pub mod table;

pub use config::{Problem, RuleConfig, RuleMistake};
pub use devbox_secrets_proto::guarded::is_guarded;
pub use matchers::Principal;
pub use rule::{Rule, RuleLabel};

use crate::access::glob::Glob;
use crate::access::peer::{Facts, Peer, Questions, UnitPattern};

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// How rules relate to a user, by its ids alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// No rule can apply to it.
    None,
    /// A rule can apply, but only one that names neither user nor group: it can apply to everybody.
    Possible,
    /// A rule names its uid or its gid.
    Named,
}

impl Policy {
    /// The policy without a configuration file: `uid` may have every variable except guarded ones.
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

    /// The facts about `peer` that rules need beyond its ids; `None` if its ids settle every rule,
    /// which saves a look at the process.
    #[must_use]
    pub fn questions(&self, peer: Peer) -> Option<Questions> {
        let mut questions = Questions::default();
        for rule in self.rules.iter().filter(|rule| rule.relation(peer) != Relation::None) {
            rule.ask(&mut questions);
        }
        (!questions.is_empty()).then_some(questions)
    }

    /// How the rules relate to the user of `peer`.
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

    /// Every fact that any rule needs, and the unit.
    #[must_use]
    pub fn all_questions(&self) -> Questions {
        let mut questions = Questions::default();
        self.rules.iter().for_each(|rule| rule.ask(&mut questions));
        questions.any_executable = !questions.executables.is_empty();
        questions.units = vec![UnitPattern::any()];
        questions
    }

    /// Whether any rule names an executable. To see those of other users takes `CAP_SYS_PTRACE`,
    /// and a thread outside any Landlock domain.
    #[must_use]
    pub fn names_executables(&self) -> bool {
        self.all_questions().any_executable
    }

    /// The positions of the rules that apply to a process.
    pub(crate) fn applying_to(&self, facts: &Facts) -> impl Iterator<Item = usize> {
        let rules = self.rules.iter().enumerate();
        rules.filter(|(_, rule)| rule.applies_to(facts)).map(|(index, _)| index)
    }
}
