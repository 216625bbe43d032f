//! Patterns of environment names: `*` is any run of characters, `?` any one.

use std::fmt;

use devbox_secrets_proto::name::MAX_NAME_LEN;
use thiserror::Error;

use crate::wildcard;

/// A pattern of environment names. Matching takes at most pattern × name steps, and no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

/// Why a text is not a pattern.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidGlob {
    /// It is empty.
    #[error("a pattern cannot be empty; \"*\" grants every variable")]
    Empty,
    /// It is longer than any name.
    #[error("a pattern has at most {MAX_NAME_LEN} characters, as a name does")]
    Length,
    /// A character is in no environment name.
    #[error("a pattern is letters, digits and '_' (ASCII), with '*' for any run of them and '?' for any one")]
    Characters,
}

impl Glob {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// [`InvalidGlob`].
    pub fn new(pattern: &str) -> Result<Self, InvalidGlob> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'*' | b'?');
        if pattern.is_empty() {
            Err(InvalidGlob::Empty)
        } else if pattern.len() > MAX_NAME_LEN {
            Err(InvalidGlob::Length)
        } else if !pattern.bytes().all(allowed) {
            Err(InvalidGlob::Characters)
        } else {
            Ok(Self(pattern.into()))
        }
    }

    /// Whether it matches every name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.bytes().all(|b| b == b'*')
    }

    /// Whether it is `name` itself, without a wildcard.
    #[must_use]
    pub fn is_exactly(&self, name: &[u8]) -> bool {
        self.0.as_bytes() == name && !wildcard::has_wildcard(name)
    }

    /// Whether it matches the whole of `name`.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        wildcard::matches(self.0.as_bytes(), name)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn stars_and_question_marks_mean_what_they_mean_in_a_shell() {
        for (pattern, name) in [("*", ""), ("*", "A"), ("DB_*", "DB_"), ("DB_*", "DB_PASS"), ("A?C", "ABC")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("DB_*", "DB"), ("DB_*", "XDB_A"), ("A?C", "AC"), ("?", ""), ("A", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_no_name_can_match_is_refused() {
        assert_eq!(Glob::new(""), Err(InvalidGlob::Empty));
        assert_eq!(Glob::new(&"A".repeat(256)), Err(InvalidGlob::Length));
        for pattern in ["A-*", "A B", "[AB]", "Ä*", "A=*", "A\0"] {
            assert_eq!(Glob::new(pattern), Err(InvalidGlob::Characters), "{pattern:?}");
        }
    }

    #[test]
    fn only_a_pattern_without_wildcards_is_exact() {
        assert!(Glob::new("PATH").unwrap().is_exactly(b"PATH"));
        assert!(!Glob::new("PAT?").unwrap().is_exactly(b"PATH"));
        assert!(!Glob::new("PAT?").unwrap().is_exactly(b"PAT?"));
    }

    proptest! {
        #[test]
        fn everything_is_every_name(pattern in "[A*]{1,3}", name in "[A-Z_]{1,20}") {
            let glob = Glob::new(&pattern).unwrap();
            prop_assert!(!glob.is_everything() || glob.matches(name.as_bytes()));
        }
    }
}
