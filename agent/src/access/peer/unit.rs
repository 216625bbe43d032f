//! Names of systemd units (systemd.unit(5)), and patterns of them.

use std::fmt;

use thiserror::Error;

use crate::access::glob;

/// Longest unit name, in bytes (`UNIT_NAME_MAX`).
const MAX_LEN: usize = 255;

/// A unit's full name, such as `app.service`, `worker@7.service`, or the template `worker@.service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnitName(Box<str>);

/// Why a text is not a unit's name.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("a unit's name is letters, digits and any of :-_.\\@, and ends in its type: write \"app.service\"")]
pub struct InvalidUnitName;

impl UnitName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidUnitName`].
    pub fn new(name: &str) -> Result<Self, InvalidUnitName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let typed = name.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && !kind.is_empty());
        let valid = typed && name.len() <= MAX_LEN && name.bytes().all(allowed) && !name.starts_with('@');
        if valid { Ok(Self(name.into())) } else { Err(InvalidUnitName) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its template: `worker@.service` for `worker@7.service`.
    fn template(&self) -> Option<String> {
        let (stem, kind) = self.0.rsplit_once('.')?;
        let (prefix, instance) = stem.split_once('@')?;
        (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
    }
}

/// A pattern of unit names: `*` is any run of characters, `?` any one; a template stands for its instances.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnitPattern(Box<str>);

/// Why a text is not a pattern of units.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error(
    "a unit's name is letters, digits and any of :-_.\\@ (* and ? are wildcards), and ends in its type: write \"app.service\" \
     or \"app-*.service\""
)]
pub struct InvalidUnitPattern;

impl UnitPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`InvalidUnitPattern`], also for a pattern that no unit can match.
    pub fn new(pattern: &str) -> Result<Self, InvalidUnitPattern> {
        let as_a_name = pattern.replace(['*', '?'], "x");
        let can_match = pattern.ends_with('*') || UnitName::new(&as_a_name).is_ok();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@*?".contains(&b);
        let valid = can_match && pattern.len() <= MAX_LEN && pattern.bytes().all(allowed);
        if valid { Ok(Self(pattern.into())) } else { Err(InvalidUnitPattern) }
    }

    #[must_use]
    pub(crate) fn any() -> Self {
        Self("*".into())
    }

    /// Whether it matches the whole name of `unit`, or is the template of it.
    #[must_use]
    pub fn matches(&self, unit: &UnitName) -> bool {
        glob::matches(self.0.as_bytes(), unit.0.as_bytes())
            || self.0.contains("@.") && unit.template().is_some_and(|template| template == *self.0)
    }
}

impl fmt::Display for UnitPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::new(name).unwrap()
    }

    #[test]
    fn names_are_those_of_systemd() {
        for good in ["app.service", "a-b_c:d@e\\x2df.g.service", "worker@.service", "dev-sda.swap"] {
            assert!(UnitName::new(good).is_ok(), "{good}");
        }
        let long = format!("{}.service", "a".repeat(250));
        for bad in
            ["", "app", ".service", "app.", "a/b.service", "a b.service", "ä.service", "@x.service", &long]
        {
            assert!(UnitName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_match_whole_names_and_templates_their_instances() {
        let matches = |pattern: &str, name: &str| UnitPattern::new(pattern).unwrap().matches(&unit(name));
        for (pattern, name) in [
            ("app.service", "app.service"),
            ("app-*.service", "app-1.service"),
            ("worker@*.service", "worker@7.service"),
            ("worker@.service", "worker@7.service"),
            ("worker@.service", "worker@a@b.service"),
            ("session-?.scope", "session-3.scope"),
            ("*", "app.service"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("app.service", "my-app.service"),
            ("app.service", "app.service.slice"),
            ("app-*.service", "app-1.scope"),
            ("worker@.service", "other@7.service"),
            ("worker@.service", "worker.service"),
            ("worker@.service", "worker@7.socket"),
            ("worker@.service", "my-worker@7.service"),
            ("worker@7.service", "worker@.service"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(UnitPattern::any().matches(&unit("app.service")));
    }

    #[test]
    fn a_pattern_that_no_unit_can_match_is_refused() {
        let long = format!("{}.service", "a".repeat(250));
        for bad in ["", "app", "app.", ".service", "a/b.service", "[ab].service", "a b.service", &long] {
            assert_eq!(UnitPattern::new(bad), Err(InvalidUnitPattern), "{bad}");
        }
    }
}
