//! `unit`: the systemd unit that a process belongs to.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::{Condition, InvalidCondition, Matcher};
use crate::access::peer::{Facts, InvalidUnitPattern, Peer, Questions, UnitPattern};
use crate::access::policy::RuleConfig;
use crate::access::policy::mismatch::{Found, Mismatch};

#[derive(Debug)]
struct Unit(UnitPattern);

#[derive(Debug, Error)]
#[error("has the unit {0:?}: {1}")]
struct InvalidUnit(String, InvalidUnitPattern);

pub(super) fn read(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    let text = rule.unit.as_ref()?;
    let unit = UnitPattern::new(text).map_err(|why| InvalidUnit(text.clone(), why));
    Some(unit.map(|unit| Arc::new(Unit(unit)) as Condition).map_err(Into::into))
}

impl Matcher for Unit {
    fn is_met_by_ids(&self, _: Peer) -> Option<bool> {
        None
    }

    fn ask(&self, questions: &mut Questions) {
        questions.units.push(self.0.clone());
    }

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let found = match &facts.unit {
            Ok(Some(unit)) if self.0.matches(unit) => return None,
            Ok(Some(unit)) => Found::Value(unit),
            Ok(None) => Found::Absent,
            Err(obstacle) => Found::Unknown(*obstacle),
        };
        Some(Mismatch { fact: "unit", wanted: &self.0, found })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {}", self.0)
    }
}
