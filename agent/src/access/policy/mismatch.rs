//! Why a rule does not apply to a process.

use std::fmt::{self, Display};

use crate::access::peer::Obstacle;

/// Longest quoted text that the process chose itself, in characters as shown: every rule may quote it, and the audit drops
/// events that are too long.
const MAX_QUOTED: usize = 512;

#[derive(Clone, Copy)]
pub(crate) struct Mismatch<'a> {
    /// The fact about the process: `uid`.
    pub(super) fact: &'static str,
    pub(super) wanted: &'a dyn Display,
    pub(super) found: Found<'a>,
}

/// A fact about a process that does not meet a condition.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Value(&'a dyn Display),
    /// Another value, which the process may have chosen: any bytes of any length.
    Text(&'a str),
    /// The process has no value that any rule asks for.
    Absent,
    Unknown(Obstacle),
}

impl Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fact, wanted, found } = self;
        match found {
            Found::Value(is) => write!(f, "{fact} is {is}, not {wanted}"),
            Found::Text(is) => write!(f, "{fact} is {}, not {wanted}", quoted(is)),
            Found::Absent => write!(f, "it is not in {fact} {wanted}"),
            Found::Unknown(why) => write!(f, "{fact} is unknown: {why}"),
        }
    }
}

/// One line. A long path loses its start, because its end names the program.
fn quoted(path: &str) -> String {
    let shown = path.escape_default().to_string();
    match shown.len().checked_sub(MAX_QUOTED) {
        None | Some(0) => shown,
        Some(over) => format!("…{}", &shown[over..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_processs_own_choice_is_one_short_line_with_its_end() {
        assert_eq!(quoted("/usr/bin/node"), "/usr/bin/node");
        let hostile = format!("/{}/node", "\u{1}\n".repeat(2_000));
        let shown = quoted(&hostile);
        assert!(shown.len() < MAX_QUOTED + 8 && shown.ends_with("/node"), "{shown}");
        assert!(!shown.chars().any(char::is_control));
    }
}
