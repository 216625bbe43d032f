//! The `[[rule]]`s of the configuration file, and their mistakes.
//!
//! ```toml
//! [[rule]]
//! name = "ci"                             # for messages
//! uid = "agent"                           # a number or a name
//! gid = 1000                              # likewise: the primary group
//! unit = "app-*.service"                  # a unit of the system manager; * and ? are wildcards
//! executable = "/usr/bin/devbox-exec"     # what connects: the launcher, not the command
//! sha256 = "…"                            # of that executable
//! env = ["DB_*", "API_KEY"]
//! ```
//!
//! A rule applies to a process that meets all its conditions, each of which is read by its own file in `matchers`.

use serde::Deserialize;
use thiserror::Error;

use super::matchers::{self, InvalidCondition, Principal};
use super::{Policy, Rule, RuleLabel};
use crate::access::glob::{Glob, InvalidGlob};

/// One `[[rule]]`, before its names are looked up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The rule's name in messages.
    #[serde(default)]
    pub name: Option<String>,
    /// The user that it grants to.
    #[serde(default)]
    pub uid: Option<Principal>,
    /// The primary group that it grants to.
    #[serde(default)]
    pub gid: Option<Principal>,
    /// The systemd units that it grants to, as a pattern.
    #[serde(default)]
    pub unit: Option<String>,
    /// The program that must be running: an absolute path without symbolic links.
    #[serde(default)]
    pub executable: Option<String>,
    /// The SHA-256 of that program, in hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Grants to everybody on this machine; then there is neither `uid` nor `gid` nor `unit`.
    #[serde(default)]
    pub any: bool,
    /// Patterns of the environment names that it grants.
    pub env: Vec<String>,
}

/// A mistake in one rule.
#[derive(Debug, Error)]
#[error("rule {} {problem}", RuleLabel::new(*.index, .name.as_deref()))]
pub struct RuleMistake {
    /// The rule's position in the file, counted from 0.
    pub index: usize,
    /// The rule's name.
    pub name: Option<String>,
    /// The problem, and the remedy.
    pub problem: Problem,
}

/// A problem of one rule.
#[derive(Debug, Error)]
pub enum Problem {
    /// No condition says whom the rule is for.
    #[error("grants to nobody: give it uid, gid or unit, or any = true")]
    Nobody,
    /// The rule is for everybody and for somebody.
    #[error("has any = true beside uid, gid or unit: everybody, or these? Keep one")]
    AnyAndSome,
    /// The rule grants nothing.
    #[error("grants nothing: list environment names in env, or [\"*\"] for all")]
    Nothing,
    /// A digest without a file to compare.
    #[error("has sha256 without executable: say which file has it")]
    DigestAlone,
    /// A condition is invalid.
    #[error("{0}")]
    Condition(InvalidCondition),
    /// A pattern is invalid.
    #[error("has the pattern {0:?} in env: {1}")]
    Glob(String, InvalidGlob),
}

impl Policy {
    /// Checks the rules of a configuration file and looks up their names.
    ///
    /// # Errors
    /// Every mistake of every rule.
    pub fn from_config(rules: Vec<RuleConfig>) -> Result<Self, Vec<RuleMistake>> {
        let mut mistakes = Vec::new();
        let mut checked = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            match rule.check() {
                Ok(rule) => checked.push(rule),
                Err(problems) => mistakes.extend(problems.into_iter().map(|problem| RuleMistake {
                    index,
                    name: rule.name.clone(),
                    problem,
                })),
            }
        }
        if mistakes.is_empty() { Ok(Self { rules: checked }) } else { Err(mistakes) }
    }
}

impl RuleConfig {
    fn check(&self) -> Result<Rule, Vec<Problem>> {
        let found = matchers::read(self);
        let mut problems = self.contradictions(found.identifies);
        problems.extend(found.errors.into_iter().map(Problem::Condition));
        let mut allow = Vec::with_capacity(self.env.len());
        for pattern in &self.env {
            match Glob::new(pattern) {
                Ok(glob) => allow.push(glob),
                Err(why) => problems.push(Problem::Glob(pattern.clone(), why)),
            }
        }
        let rule = Rule { name: self.name.clone(), conditions: found.conditions, allow };
        if problems.is_empty() { Ok(rule) } else { Err(problems) }
    }

    fn contradictions(&self, identifies: bool) -> Vec<Problem> {
        let found = [
            (self.any && identifies).then_some(Problem::AnyAndSome),
            (!self.any && !identifies).then_some(Problem::Nobody),
            (self.sha256.is_some() && self.executable.is_none()).then_some(Problem::DigestAlone),
            self.env.is_empty().then_some(Problem::Nothing),
        ];
        found.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        rule: Vec<RuleConfig>,
    }

    fn policy(toml: &str) -> Result<Policy, Vec<String>> {
        let file: File = toml::from_str(toml).map_err(|error| vec![error.to_string()])?;
        Policy::from_config(file.rule).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn users_and_groups_may_be_names_or_numbers() {
        let policy = policy("[[rule]]\nname='ci'\nuid='root'\ngid=7\nenv=['DB_*','KEY']").unwrap();
        let rule = &policy.rules[0];
        assert_eq!((rule.applies_to_text().as_str(), rule.allow.len()), ("uid 0, gid 7", 2));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_rule_and_remedy() {
        let text = "[[rule]]\nenv=[]\n[[rule]]\nname='ci'\nuid='no-such-user'\ngid='no-such-group'\nenv=['A-*']\n\
                    [[rule]]\nany=true\nuid=1\nenv=['*']\n[[rule]]\nunit='app'\nsha256='1'\nenv=['*']\n\
                    [[rule]]\nexecutable='bin/x'\nenv=['*']";
        let mistakes = policy(text).unwrap_err();
        let expected = [
            "rule 1 grants to nobody: give it uid",
            "rule 1 grants nothing: list environment names",
            "rule 2 (\"ci\") names the user \"no-such-user\", which this machine does not have",
            "rule 2 (\"ci\") names the group \"no-such-group\", which this machine does not have",
            "rule 2 (\"ci\") has the pattern \"A-*\" in env: a pattern is letters",
            "rule 3 has any = true beside uid",
            "rule 4 has sha256 without executable",
            "rule 4 has the unit \"app\": a unit's name is",
            "rule 4 has an invalid sha256: a SHA-256 is 64",
            "rule 5 grants to nobody",
            "rule 5 has the executable \"bin/x\": write an absolute path",
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, start) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(start), "{mistake}");
        }
    }

    #[test]
    fn unknown_keys_and_impossible_ids_are_mistakes() {
        for (text, word) in [
            ("[[rule]]\nuid=1\nenv=['*']\nallow=1", "allow"),
            ("[[rule]]\nuid=-1\nenv=['*']", "4294967294"),
            ("[[rule]]\nuid=4294967295\nenv=['*']", "4294967294"),
            ("[[rule]]\nuid=true\nenv=['*']", "a number or a name"),
            ("[[rule]]\nuid=1", "env"),
        ] {
            let mistakes = policy(text).unwrap_err();
            assert!(mistakes[0].contains(word), "{mistakes:?}");
        }
    }
}
