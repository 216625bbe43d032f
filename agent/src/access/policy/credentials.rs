//! The `[[credential]]`s of the configuration file: the variables that a unit may load as
//! credentials.
//!
//! ```toml
//! [[credential]]
//! unit = "app.service"         # or a pattern, as in [[rule]]: "app-*.service", "worker@.service"
//! env = ["DB_*", "API_KEY"]    # patterns of variables' names, as in [[rule]]
//! ```

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::table::columns;
use crate::access::glob::{Glob, InvalidGlob};
use crate::access::peer::{InvalidUnitPattern, UnitName, UnitPattern};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialRuleConfig {
    pub unit: String,
    /// Patterns of the variables' names that it may load.
    pub env: Vec<String>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CredentialRuleMistake {
    #[error("the unit {0:?} is invalid: {1}")]
    Unit(String, #[source] InvalidUnitPattern),
    #[error("it grants nothing: list variables' names in env, or [\"*\"] for all")]
    Nothing,
    #[error("the pattern {0:?} in env is invalid: {1}")]
    Glob(String, #[source] InvalidGlob),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CredentialRule {
    unit: UnitPattern,
    env: Vec<Glob>,
}

impl CredentialRule {
    /// Checks a rule of the file.
    ///
    /// # Errors
    /// The first [`CredentialRuleMistake`].
    pub(crate) fn from_config(config: &CredentialRuleConfig) -> Result<Self, CredentialRuleMistake> {
        let unit = UnitPattern::new(&config.unit)
            .map_err(|why| CredentialRuleMistake::Unit(config.unit.clone(), why))?;
        if config.env.is_empty() {
            return Err(CredentialRuleMistake::Nothing);
        }
        let glob =
            |text: &String| Glob::new(text).map_err(|why| CredentialRuleMistake::Glob(text.clone(), why));
        Ok(Self { unit, env: config.env.iter().map(glob).collect::<Result<_, _>>()? })
    }
}

/// All rules; without one, no unit gets a credential. A guarded variable needs no exact name here,
/// because a credential is a file and steers no loader or shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialRules(Vec<CredentialRule>);

impl CredentialRules {
    #[must_use]
    pub(crate) fn new(rules: Vec<CredentialRule>) -> Self {
        Self(rules)
    }

    #[must_use]
    pub(crate) fn rules(&self) -> &[CredentialRule] {
        &self.0
    }

    /// The number of the first rule by which `unit` may load the variable `name`, counted from 1.
    #[must_use]
    pub(crate) fn granting(&self, unit: &UnitName, name: &str) -> Option<usize> {
        let grants = |rule: &CredentialRule| {
            rule.unit.matches(unit) && rule.env.iter().any(|glob| glob.matches(name.as_bytes()))
        };
        self.0.iter().position(grants).map(|index| index + 1)
    }
}

impl fmt::Display for CredentialRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no credential rules: no unit may load anything\n");
        }
        let names =
            |rule: &CredentialRule| rule.env.iter().map(Glob::to_string).collect::<Vec<_>>().join(", ");
        let rows: Vec<[String; 2]> = self.0.iter().map(|rule| [rule.unit.to_string(), names(rule)]).collect();
        f.write_str(&columns(["UNIT", "MAY LOAD"], &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(unit: &str, env: &[&str]) -> Result<CredentialRule, CredentialRuleMistake> {
        let env = env.iter().map(|text| (*text).to_owned()).collect();
        CredentialRule::from_config(&CredentialRuleConfig { unit: unit.to_owned(), env })
    }

    fn unit(name: &str) -> UnitName {
        UnitName::new(name).unwrap()
    }

    #[test]
    fn without_a_rule_no_unit_has_anything() {
        assert_eq!(CredentialRules::default().granting(&unit("app.service"), "DB"), None);
    }

    #[test]
    fn a_rule_grants_its_names_to_its_unit_only() {
        let rules = CredentialRules::new(vec![
            rule("app.service", &["DB_*"]).unwrap(),
            rule("worker@.service", &["TOKEN"]).unwrap(),
            rule("job-*.service", &["JOB"]).unwrap(),
        ]);
        assert!(rules.granting(&unit("app.service"), "DB_PASS").is_some());
        assert!(rules.granting(&unit("worker@3.service"), "TOKEN").is_some());
        assert!(rules.granting(&unit("job-nightly.service"), "JOB").is_some());
        assert!(rules.granting(&unit("job-nightly.socket"), "JOB").is_none());
        assert!(rules.granting(&unit("my-job-nightly.service"), "JOB").is_none());
        assert!(rules.granting(&unit("app.service"), "TOKEN").is_none());
        assert!(rules.granting(&unit("other.service"), "DB_PASS").is_none());
        assert!(rules.granting(&unit("app.socket"), "DB_PASS").is_none());
    }

    #[test]
    fn mistakes_say_what_to_write() {
        assert!(rule("app", &["*"]).unwrap_err().to_string().contains("app.service"));
        assert_eq!(rule("app.service", &[]), Err(CredentialRuleMistake::Nothing));
        assert!(rule("app.service", &["DB-PASS"]).unwrap_err().to_string().contains("DB-PASS"));
    }
}
