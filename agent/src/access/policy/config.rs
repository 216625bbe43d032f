//! Rules as the configuration file has them, and what can be wrong with each.
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
//! All that a rule says must hold. `executable` and `sha256` narrow a rule down: by themselves they say too little, since
//! everybody may run what everybody can execute.

use std::fmt;

use nix::unistd::{Group, User};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::{Policy, Rule, RuleLabel};
use crate::access::glob::{Glob, InvalidGlob};
use crate::access::peer::{
    InvalidDigest, InvalidUnitPattern, UnitPattern, is_anonymous_group, is_anonymous_user,
};

/// One `[[rule]]`, before its names are looked up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What messages call the rule.
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

/// A user or group, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Its number.
    Id(u32),
    /// Its name, as the machine's user database has it.
    Name(String),
}

/// What is wrong with one rule.
#[derive(Debug, Error)]
#[error("rule {} {problem}", RuleLabel::new(*.index, .name.as_deref()))]
pub struct RuleMistake {
    /// The rule's place in the file, counted from 0.
    pub index: usize,
    /// The rule's name.
    pub name: Option<String>,
    /// What is wrong, and the remedy.
    pub problem: Problem,
}

/// What can be wrong with a rule.
#[derive(Debug, Error)]
pub enum Problem {
    /// It says nobody.
    #[error("grants to nobody: give it uid, gid or unit, or any = true")]
    Nobody,
    /// It says everybody and somebody.
    #[error("has any = true beside uid, gid or unit: everybody, or these? Keep one")]
    AnyAndSome,
    /// It grants nothing.
    #[error("grants nothing: list environment names in env, or [\"*\"] for all")]
    Nothing,
    /// There is no such user.
    #[error("names the user {0:?}, which this machine does not have: create it, or give its number")]
    User(String),
    /// There is no such group.
    #[error("names the group {0:?}, which this machine does not have: create it, or give its number")]
    Group(String),
    /// The user database fails.
    #[error("names {0:?}, and the user database cannot be read: give the number instead")]
    Database(String, #[source] nix::Error),
    /// The overflow uid or gid, in a user namespace that leaves ids out.
    #[error(
        "names the {kind} {id}, by which this user namespace shows every {kind} that it does not map (/proc/self/uid_map): it \
         identifies nobody; map the {kind}, or run the daemon outside the namespace"
    )]
    Anonymous {
        /// User or group.
        kind: &'static str,
        /// The id.
        id: u32,
    },
    /// No pattern of units.
    #[error("has the unit {0:?}: {1}")]
    Unit(String, InvalidUnitPattern),
    /// A path that no executable has.
    #[error("has the executable {0:?}: write an absolute path without . and .., as readlink -f prints it")]
    Executable(String),
    /// No digest.
    #[error("has a sha256 that is none: {0}")]
    Digest(InvalidDigest),
    /// A digest of what?
    #[error("has sha256 without executable: say which file has it")]
    DigestAlone,
    /// A pattern is none.
    #[error("has the pattern {0:?} in env: {1}")]
    Glob(String, InvalidGlob),
}

impl Policy {
    /// Takes the rules of a configuration file, names looked up.
    ///
    /// # Errors
    /// Every mistake of every rule.
    pub fn from_config(rules: Vec<RuleConfig>) -> Result<Self, Vec<RuleMistake>> {
        let mut mistakes = Vec::new();
        let mut taken = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let name = rule.name.clone();
            match rule.check() {
                Ok(rule) => taken.push(rule),
                Err(problems) => mistakes.extend(problems.into_iter().map(|problem| RuleMistake {
                    index,
                    name: name.clone(),
                    problem,
                })),
            }
        }
        if mistakes.is_empty() { Ok(Self { rules: taken }) } else { Err(mistakes) }
    }
}

impl RuleConfig {
    fn check(self) -> Result<Rule, Vec<Problem>> {
        let mut problems = self.contradictions();
        let uid = keep(self.uid.map(|uid| uid.look_up(user).and_then(known_user)).transpose(), &mut problems)
            .flatten();
        let gid =
            keep(self.gid.map(|gid| gid.look_up(group).and_then(known_group)).transpose(), &mut problems)
                .flatten();
        let unit = keep(self.unit.map(unit).transpose(), &mut problems).flatten();
        let executable = keep(self.executable.map(executable).transpose(), &mut problems).flatten();
        let sha256 = self.sha256.map(|text| text.parse().map_err(Problem::Digest));
        let sha256 = keep(sha256.transpose(), &mut problems).flatten();
        let glob = |text: &String| Glob::new(text).map_err(|why| Problem::Glob(text.clone(), why));
        let allow = self.env.iter().filter_map(|text| keep(glob(text), &mut problems)).collect();
        let rule = Rule { name: self.name, uid, gid, unit, executable, sha256, allow };
        if problems.is_empty() { Ok(rule) } else { Err(problems) }
    }

    fn contradictions(&self) -> Vec<Problem> {
        let some = self.uid.is_some() || self.gid.is_some() || self.unit.is_some();
        let found = [
            (self.any && some).then_some(Problem::AnyAndSome),
            (!self.any && !some).then_some(Problem::Nobody),
            (self.sha256.is_some() && self.executable.is_none()).then_some(Problem::DigestAlone),
            self.env.is_empty().then_some(Problem::Nothing),
        ];
        found.into_iter().flatten().collect()
    }
}

fn unit(text: String) -> Result<UnitPattern, Problem> {
    UnitPattern::new(&text).map_err(|why| Problem::Unit(text, why))
}

/// As the kernel writes it, for it is compared with that.
fn executable(path: String) -> Result<String, Problem> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let is_path = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain));
    if is_path && !path.contains('\0') { Ok(path) } else { Err(Problem::Executable(path)) }
}

/// The result's value; its problem goes to the others.
fn keep<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

impl Principal {
    fn look_up(self, by_name: fn(&str) -> Result<u32, Problem>) -> Result<u32, Problem> {
        match self {
            Self::Id(id) => Ok(id),
            Self::Name(name) => by_name(&name),
        }
    }
}

fn known_user(id: u32) -> Result<u32, Problem> {
    if is_anonymous_user(id) { Err(Problem::Anonymous { kind: "user", id }) } else { Ok(id) }
}

fn known_group(id: u32) -> Result<u32, Problem> {
    if is_anonymous_group(id) { Err(Problem::Anonymous { kind: "group", id }) } else { Ok(id) }
}

fn user(name: &str) -> Result<u32, Problem> {
    let found = User::from_name(name).map_err(|error| Problem::Database(name.to_owned(), error))?;
    found.map(|user| user.uid.as_raw()).ok_or_else(|| Problem::User(name.to_owned()))
}

fn group(name: &str) -> Result<u32, Problem> {
    let found = Group::from_name(name).map_err(|error| Problem::Database(name.to_owned(), error))?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| Problem::Group(name.to_owned()))
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = Principal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Principal, E> {
                let fits = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
                fits.map(Principal::Id).ok_or_else(|| E::custom("an id is a number from 0 to 4294967294"))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Principal, E> {
                self.visit_i64(i64::try_from(id).unwrap_or(i64::MAX))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Principal, E> {
                if name.is_empty() || name.contains('\0') {
                    return Err(E::custom("a user's or group's name is not empty and has no NUL"));
                }
                Ok(Principal::Name(name.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrName).map_err(D::Error::custom)
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
        assert_eq!((rule.uid, rule.gid, rule.allow.len()), (Some(0), Some(7), 2));
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
            "rule 4 has a sha256 that is none: a SHA-256 is 64",
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

    #[test]
    fn an_executable_is_written_as_the_kernel_writes_it() {
        for bad in ["", "/", "x", "/a//b", "/a/./b", "/a/../b", "/a/", "/a\0"] {
            assert!(executable(bad.to_owned()).is_err(), "{bad:?}");
        }
        for good in ["/a", "/usr/bin/a b", "/a/..b", "/ä"] {
            assert!(executable(good.to_owned()).is_ok(), "{good:?}");
        }
    }
}
