//! Names of systemd units (systemd.unit(5)).

use std::fmt;

use thiserror::Error;

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
    /// Checks and takes a name.
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

    /// Whether `unit` is this unit, or an instance of this template.
    #[must_use]
    pub fn covers(&self, unit: &Self) -> bool {
        self == unit || unit.template().is_some_and(|template| template == *self.0)
    }

    /// `worker@.service` of `worker@7.service`.
    fn template(&self) -> Option<String> {
        let (stem, kind) = self.0.rsplit_once('.')?;
        let (prefix, instance) = stem.split_once('@')?;
        (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
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
    fn a_template_covers_its_instances_and_nothing_else() {
        assert!(unit("worker@.service").covers(&unit("worker@7.service")));
        assert!(unit("worker@.service").covers(&unit("worker@a@b.service")));
        assert!(unit("app.service").covers(&unit("app.service")));
        for other in ["worker.service", "worker2@7.service", "worker@7.socket", "my-worker@7.service"] {
            assert!(!unit("worker@.service").covers(&unit(other)), "{other}");
        }
        assert!(!unit("worker@7.service").covers(&unit("worker@.service")));
    }
}
