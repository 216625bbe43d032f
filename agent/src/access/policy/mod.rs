//! The rules: conditions on processes, and the names of the variables that each grants.
//!
//! No rule, no secret. Rules only add to each other. A fact about a process that is unknown meets no condition. A guarded
//! name ([`is_guarded`]: it steers loaders, shells or interpreters) is granted only by a rule that lists exactly it.
//!
//! - `config`: a `[[rule]]` of the configuration file; `matchers`: its conditions, one file for each subject;
//! - [`credentials`]: a `[[credential]]`, for systemd units;
//! - [`table`]: rules for people.

mod config;
pub(crate) mod credentials;
mod matchers;
mod mismatch;
pub(crate) mod table;

pub use config::{Problem, RuleConfig, RuleMistake};
pub(crate) use devbox_secrets_proto::guarded::is_guarded;

use std::fmt;

use self::matchers::Condition;
use self::mismatch::Mismatch;
use crate::access::glob::Glob;
use crate::access::peer::{Facts, Peer, Questions, UnitPattern};

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// How rules relate to a user, by its ids alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
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
    pub(crate) fn own_uid_only(uid: u32) -> Self {
        let allow = Glob::new("*").into_iter().collect();
        Self { rules: vec![Rule { name: None, conditions: vec![matchers::exactly_uid(uid)], allow }] }
    }

    #[must_use]
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The facts about `peer` that rules need beyond its ids; `None` if its ids settle every rule,
    /// which saves a look at the process.
    #[must_use]
    pub(crate) fn questions(&self, peer: Peer) -> Option<Questions> {
        let mut questions = Questions::default();
        for rule in self.rules.iter().filter(|rule| rule.relation(peer) != Relation::None) {
            rule.ask(&mut questions);
        }
        (!questions.is_empty()).then_some(questions)
    }

    #[must_use]
    pub(crate) fn relation(&self, peer: Peer) -> Relation {
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
    pub(crate) fn all_questions(&self) -> Questions {
        let mut questions = Questions::default();
        self.rules.iter().for_each(|rule| rule.ask(&mut questions));
        questions.any_executable = !questions.executables.is_empty();
        questions.units = vec![UnitPattern::any()];
        questions
    }

    /// Whether any rule names an executable. To see those of other users takes `CAP_SYS_PTRACE`,
    /// and a thread outside any Landlock domain.
    #[must_use]
    pub(crate) fn names_executables(&self) -> bool {
        self.all_questions().any_executable
    }

    /// The positions of the rules that apply to a process.
    pub(crate) fn applying_to(&self, facts: &Facts) -> impl Iterator<Item = usize> {
        let rules = self.rules.iter().enumerate();
        rules.filter(|(_, rule)| rule.mismatches(facts).next().is_none()).map(|(index, _)| index)
    }
}

/// One rule, checked. It applies to a process that meets all its conditions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    name: Option<String>,
    conditions: Vec<Condition>,
    allow: Vec<Glob>,
}

/// The rule's name in messages: `2 ("ci")`, counted from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RuleLabel<'a> {
    /// The rule's position in the file, counted from 0.
    pub index: usize,
    pub name: Option<&'a str>,
}

impl<'a> RuleLabel<'a> {
    fn new(index: usize, name: Option<&'a str>) -> Self {
        Self { index, name }
    }
}

impl fmt::Display for RuleLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.index + 1)?;
        self.name.map_or(Ok(()), |name| write!(f, " ({name:?})"))
    }
}

impl Rule {
    /// The rule's label at this position in the file, counted from 0.
    #[must_use]
    pub(crate) fn label(&self, index: usize) -> RuleLabel<'_> {
        RuleLabel::new(index, self.name.as_deref())
    }

    #[must_use]
    pub(crate) fn allow(&self) -> &[Glob] {
        &self.allow
    }

    /// How it relates to a user, by the ids of `peer` alone.
    fn relation(&self, peer: Peer) -> Relation {
        let mut relation = Relation::Possible;
        for condition in &self.conditions {
            match condition.is_met_by_ids(peer) {
                Some(false) => return Relation::None,
                Some(true) => relation = Relation::Named,
                None => {}
            }
        }
        relation
    }

    fn ask(&self, questions: &mut Questions) {
        self.conditions.iter().for_each(|condition| condition.ask(questions));
    }

    /// The conditions that the process fails to meet; empty if the rule applies.
    pub(crate) fn mismatches<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = Mismatch<'a>> {
        self.conditions.iter().filter_map(|condition| condition.mismatch(facts))
    }

    pub(crate) fn grants(&self, name: &[u8], guarded: bool) -> bool {
        self.allow.iter().any(|glob| if guarded { glob.is_exactly(name) } else { glob.matches(name) })
    }

    pub(crate) fn grants_everything(&self) -> bool {
        self.allow.iter().any(Glob::is_everything)
    }

    /// Why the rule does not grant `name` to a process it applies to, for messages.
    pub(crate) fn why_not_granted(&self, name: Option<&str>) -> String {
        match name {
            Some(name) if is_guarded(name.as_bytes()) => format!("does not grant {name} by its exact name"),
            Some(name) if !self.grants(name.as_bytes(), false) => format!("does not grant {name}"),
            _ => "applies to this process".to_owned(),
        }
    }

    /// The processes it applies to, for people: `uid 1000, unit app.service`.
    #[must_use]
    pub(crate) fn applies_to_text(&self) -> String {
        if self.conditions.is_empty() {
            return "everybody".to_owned();
        }
        self.conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The names it grants, for people: `DB_*, API_KEY`.
    #[must_use]
    pub(crate) fn granted(&self) -> String {
        self.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
