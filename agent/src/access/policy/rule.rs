//! One rule: the processes it applies to, and the variables it grants them.

use std::fmt;

use super::Relation;
use super::is_guarded;
use super::matchers::Condition;
use super::mismatch::Mismatch;
use crate::access::glob::Glob;
use crate::access::peer::{Facts, Peer, Questions};

/// One rule, checked. It applies to a process that meets all its conditions.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub(super) name: Option<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) allow: Vec<Glob>,
}

/// The rule's name in messages: `2 ("ci")`, counted from 1.
#[derive(Debug, Clone, Copy)]
pub struct RuleLabel<'a> {
    /// The rule's position in the file, counted from 0.
    pub index: usize,
    /// The rule's name.
    pub name: Option<&'a str>,
}

impl<'a> RuleLabel<'a> {
    pub(super) fn new(index: usize, name: Option<&'a str>) -> Self {
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
    pub fn label(&self, index: usize) -> RuleLabel<'_> {
        RuleLabel::new(index, self.name.as_deref())
    }

    /// The patterns that it grants.
    #[must_use]
    pub fn allow(&self) -> &[Glob] {
        &self.allow
    }

    /// How it relates to a user, by the ids of `peer` alone.
    pub(super) fn relation(&self, peer: Peer) -> Relation {
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

    /// Adds the facts that it needs beyond ids.
    pub(super) fn ask(&self, questions: &mut Questions) {
        self.conditions.iter().for_each(|condition| condition.ask(questions));
    }

    pub(super) fn applies_to(&self, facts: &Facts) -> bool {
        self.mismatches(facts).next().is_none()
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
    pub fn applies_to_text(&self) -> String {
        if self.conditions.is_empty() {
            return "everybody".to_owned();
        }
        self.conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The names it grants, for people: `DB_*, API_KEY`.
    #[must_use]
    pub fn granted(&self) -> String {
        self.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
