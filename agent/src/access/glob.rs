//! Patterns with wildcards: `*` stands for any run of characters, `?` for exactly one.

use std::fmt;

use devbox_secrets_proto::name::MAX_NAME_LEN;
use thiserror::Error;

/// A pattern of environment names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

/// Why a text is not a pattern of environment names.
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
    /// Checks a pattern.
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
        self.0.as_bytes() == name && !has_wildcard(name)
    }

    /// Whether it matches the whole of `name`.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        matches(self.0.as_bytes(), name)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `pattern` matches the whole of `text`. Takes at most pattern × text steps and allocates nothing, because any
/// local process can choose the text.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The position after the last star, and the end of the text that this star has taken. Earlier stars need no retry:
    // the last one can take any text that they would.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(&b) if b == b'?' || b == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, swallowed)) = star else { return false };
                star = Some((after, swallowed + 1));
                (p, t) = (after, swallowed + 1);
            }
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

fn has_wildcard(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| matches!(b, b'*' | b'?'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob_matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name.as_bytes())
    }

    /// The definition of matching, without regard to the number of steps.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && naive(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn stars_and_question_marks_mean_what_they_mean_in_a_shell() {
        for (pattern, name) in [("*", ""), ("*", "A"), ("DB_*", "DB_"), ("DB_*", "DB_PASS"), ("A?C", "ABC")] {
            assert!(glob_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("DB_*", "DB"), ("DB_*", "XDB_A"), ("A?C", "AC"), ("?", ""), ("A", "a")] {
            assert!(!glob_matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_no_name_can_match_is_refused() {
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

    #[test]
    fn a_pattern_of_many_stars_stays_fast() {
        let pattern = "*A".repeat(127);
        assert!(!matches(pattern.as_bytes(), &[b'A'; 126]));
        assert!(!matches(format!("{pattern}B").as_bytes(), &[b'A'; 255]));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[AB*?]{1,10}", text in "[AB]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn everything_is_every_name(pattern in "[A*]{1,3}", name in "[A-Z_]{1,20}") {
            let glob = Glob::new(&pattern).unwrap();
            prop_assert!(!glob.is_everything() || glob.matches(name.as_bytes()));
        }
    }
}
