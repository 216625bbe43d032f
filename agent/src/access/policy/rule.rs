//! One rule: whom it is about, and what it grants.

use std::fmt;

use super::is_guarded;
use super::mismatch::Mismatch;
use crate::access::glob::Glob;
use crate::access::peer::{Digest, ExecutableQuestion, Facts, Peer, Questions, UnitPattern};

/// One rule, checked. It is about a process if all that it says of one holds.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub(super) name: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) unit: Option<UnitPattern>,
    pub(super) executable: Option<String>,
    pub(super) sha256: Option<Digest>,
    pub(super) allow: Vec<Glob>,
}

/// What messages call a rule: `2 ("ci")`; counted from 1, for people.
#[derive(Debug, Clone, Copy)]
pub struct RuleLabel<'a> {
    /// The rule's place in the file, counted from 0.
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
    pub(super) fn everything_for(uid: u32) -> Self {
        Self { uid: Some(uid), allow: Glob::new("*").into_iter().collect(), ..Self::default() }
    }

    /// What messages call the rule at this place, counted from 0.
    #[must_use]
    pub fn label(&self, index: usize) -> RuleLabel<'_> {
        RuleLabel::new(index, self.name.as_deref())
    }

    /// The executable that it grants to; none for any.
    #[must_use]
    pub fn executable(&self) -> Option<&str> {
        self.executable.as_deref()
    }

    /// The patterns that it grants.
    #[must_use]
    pub fn allow(&self) -> &[Glob] {
        &self.allow
    }

    /// Whether it is about `peer`, for all that its numbers say.
    pub(super) fn could_be_about(&self, peer: Peer) -> bool {
        self.uid.is_none_or(|uid| uid == peer.uid) && self.gid.is_none_or(|gid| gid == peer.gid)
    }

    /// Whether it says of a user or a group that it is about them.
    pub(super) fn names_user_or_group(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    /// Adds what it asks for beyond numbers.
    pub(super) fn ask(&self, questions: &mut Questions) {
        questions.units.extend(self.unit.clone());
        let Some(path) = &self.executable else { return };
        let digest = self.sha256.is_some();
        match questions.executables.iter_mut().find(|question| question.path == *path) {
            Some(question) => question.digest |= digest,
            None => questions.executables.push(ExecutableQuestion { path: path.clone(), digest }),
        }
    }

    pub(super) fn is_about(&self, facts: &Facts) -> bool {
        self.mismatches(facts).next().is_none()
    }

    /// All that it says of a process and does not hold for this one; nothing, if it is about it.
    pub fn mismatches<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = Mismatch<'a>> {
        let checks = [
            self.check_uid(facts),
            self.check_gid(facts),
            self.check_unit(facts),
            self.check_executable(facts),
            self.check_digest(facts),
        ];
        checks.into_iter().flatten()
    }

    fn check_uid<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let (wanted, is) = (self.uid?, facts.peer.uid);
        (wanted != is).then_some(Mismatch::Uid { wanted, is })
    }

    fn check_gid<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let (wanted, is) = (self.gid?, facts.peer.gid);
        (wanted != is).then_some(Mismatch::Gid { wanted, is })
    }

    fn check_unit<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let wanted = self.unit.as_ref()?;
        match &facts.unit {
            Ok(Some(unit)) if wanted.matches(unit) => None,
            Ok(is) => Some(Mismatch::Unit { wanted, is: is.as_ref() }),
            Err(obstacle) => Some(Mismatch::UnitUnknown(*obstacle)),
        }
    }

    fn check_executable<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let wanted = self.executable.as_deref()?;
        match &facts.executable {
            Ok(executable) if executable.path == wanted => None,
            Ok(executable) => Some(Mismatch::Executable { wanted, is: &executable.path }),
            Err(obstacle) => Some(Mismatch::ExecutableUnknown(*obstacle)),
        }
    }

    fn check_digest<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let wanted = self.sha256?;
        match facts.digest() {
            Ok(is) if is == wanted => None,
            Ok(is) => Some(Mismatch::Digest { wanted, is }),
            Err(obstacle) => Some(Mismatch::DigestUnknown(obstacle)),
        }
    }

    pub(super) fn grants(&self, name: &[u8], guarded: bool) -> bool {
        self.allow.iter().any(|glob| if guarded { glob.is_exactly(name) } else { glob.matches(name) })
    }

    /// Why a rule about a process grants it nothing of what it asks for.
    pub(super) fn why_not_granted(&self, name: Option<&str>) -> String {
        match name {
            Some(name) if is_guarded(name.as_bytes()) => format!("does not grant {name} by its exact name"),
            Some(name) if !self.grants(name.as_bytes(), false) => format!("does not grant {name}"),
            _ => "is about this process".to_owned(),
        }
    }

    /// Whom it is about, for people: `uid 1000, unit app.service`.
    #[must_use]
    pub fn about(&self) -> String {
        let sha256 = self.sha256.map(|digest| format!("sha256 {digest}"));
        let parts = [
            self.uid.map(|uid| format!("uid {uid}")),
            self.gid.map(|gid| format!("gid {gid}")),
            self.unit.as_ref().map(|unit| format!("unit {unit}")),
            self.executable.as_ref().map(|path| format!("executable {path}")),
            sha256,
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "everybody".to_owned() } else { parts.join(", ") }
    }

    /// What it grants, for people: `DB_*, API_KEY`.
    #[must_use]
    pub fn granted(&self) -> String {
        self.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
