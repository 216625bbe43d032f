//! Guarded names: environment variables by which a program takes code, options, paths or trust before its own first line.
//!
//! A user who may store a secret must not thereby run code in every devbox. So the daemon injects a guarded name only if a rule
//! names it exactly, and never through a pattern; the server warns when such a secret is stored.
//!
//! The [`table`](families) is best effort: any program may read any variable. It covers the tools that a devbox has, by family,
//! so that a new member of an open family is guarded before it is known here. Names that users commonly give to secrets
//! (`NPM_TOKEN`, `AWS_SECRET_ACCESS_KEY`, `PGPASSWORD`, `DATABASE_URL`, …) are not guarded. A variable that only says where a
//! program sends its data, and on whose behalf, is an application's setting and not guarded either.
//!
//! Names are compared without regard to case: many tools read both cases (`http_proxy`, `npm_config_*`).

mod table;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::LazyLock;

/// Variables that are guarded for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The variables' effect, as a phrase.
    pub reason: &'static str,
    /// The manual page, document or tool that says so.
    pub source: &'static str,
    names: &'static str,
    except: &'static str,
}

impl Family {
    const fn new(reason: &'static str, source: &'static str, names: &'static str) -> Self {
        Self { reason, source, names, except: "" }
    }

    /// Lets names of an open family pass because they hold secrets.
    const fn except(self, except: &'static str) -> Self {
        Self { except, ..self }
    }

    /// The guarded names, in upper case; a `*` stands for any run of characters.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.names.split_ascii_whitespace()
    }

    /// The names of this family that are not guarded, in the same form.
    pub fn exceptions(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.except.split_ascii_whitespace()
    }
}

/// All guarded names, by family.
#[must_use]
pub fn families() -> &'static [Family] {
    table::FAMILIES
}

/// Whether `name` is injected only if a rule names it exactly.
#[must_use]
pub fn is_guarded(name: &[u8]) -> bool {
    family_of(name).is_some()
}

/// The family that guards `name`; `None` if the name is not guarded.
#[must_use]
pub fn family_of(name: &[u8]) -> Option<&'static Family> {
    static INDEX: LazyLock<Index> = LazyLock::new(Index::new);
    INDEX.find(name)
}

/// The table in a form that is searched in a few comparisons: a launch asks once a variable.
struct Index {
    /// Exact names and prefixes, in order. No prefix covers another entry, so the last entry that is not greater than a name is
    /// the only one that can match it.
    ordered: Vec<(Pattern, &'static Family)>,
    /// Patterns with a suffix.
    suffixed: Vec<(Pattern, &'static Family)>,
}

impl Index {
    fn new() -> Self {
        let all =
            families().iter().flat_map(|family| family.names().map(move |name| (Pattern::new(name), family)));
        let (suffixed, mut ordered): (Vec<_>, Vec<_>) =
            all.partition(|(pattern, _)| !pattern.suffix.is_empty());
        ordered.sort_by_key(|(pattern, _)| pattern.start);
        Self { ordered, suffixed }
    }

    fn find(&self, name: &[u8]) -> Option<&'static Family> {
        let after =
            self.ordered.partition_point(|(pattern, _)| compare(pattern.start, name) != Ordering::Greater);
        let candidate = self.ordered[..after].last();
        let found = candidate.into_iter().chain(&self.suffixed).filter(|(pattern, _)| pattern.matches(name));
        found
            .map(|(_, family)| *family)
            .find(|family| !family.exceptions().any(|text| Pattern::new(text).matches(name)))
    }
}

/// An exact name, or its parts before and after a `*`.
#[derive(Clone, Copy)]
struct Pattern {
    start: &'static [u8],
    suffix: &'static [u8],
    open: bool,
}

impl Pattern {
    fn new(text: &'static str) -> Self {
        match text.split_once('*') {
            Some((start, suffix)) => Self { start: start.as_bytes(), suffix: suffix.as_bytes(), open: true },
            None => Self { start: text.as_bytes(), suffix: b"", open: false },
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        let Some(rest) = name.len().checked_sub(self.start.len()) else { return false };
        let (start, rest) = (&name[..self.start.len()], &name[name.len() - rest..]);
        if !start.eq_ignore_ascii_case(self.start) {
            return false;
        }
        match rest.len().checked_sub(self.suffix.len()) {
            Some(at) => (self.open || at == 0) && rest[at..].eq_ignore_ascii_case(self.suffix),
            None => false,
        }
    }
}

/// The order of the table's upper-case entries, for a name of either case.
fn compare(entry: &[u8], name: &[u8]) -> Ordering {
    entry.iter().copied().cmp(name.iter().map(u8::to_ascii_uppercase))
}
