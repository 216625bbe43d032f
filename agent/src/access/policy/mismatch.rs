//! Why a rule is not about a process.

use std::fmt;

use crate::access::peer::{Digest, Obstacle, UnitName, UnitPattern};

/// Longest path of a process's own choice that is repeated, in characters as they are shown: each rule may repeat it, and the audit
/// takes no event of any length.
const MAX_QUOTED: usize = 512;

/// One thing that a rule says of a process and that does not hold, or is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "what the rule wants, and what is")]
pub enum Mismatch<'a> {
    /// Another user.
    Uid { wanted: u32, is: u32 },
    /// Another group.
    Gid { wanted: u32, is: u32 },
    /// Another unit, or none that any rule asks for.
    Unit { wanted: &'a UnitPattern, is: Option<&'a UnitName> },
    /// Nobody knows the unit.
    UnitUnknown(Obstacle),
    /// Another program.
    Executable { wanted: &'a str, is: &'a str },
    /// Nobody knows the program.
    ExecutableUnknown(Obstacle),
    /// Another file under the name.
    Digest { wanted: Digest, is: Digest },
    /// Nobody knows what is in the file.
    DigestUnknown(Obstacle),
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid { wanted, is } => write!(f, "uid is {is}, not {wanted}"),
            Self::Gid { wanted, is } => write!(f, "gid is {is}, not {wanted}"),
            Self::Unit { wanted, is: Some(unit) } => write!(f, "unit is {unit}, not {wanted}"),
            Self::Unit { wanted, is: None } => write!(f, "it is not in unit {wanted}"),
            Self::Executable { wanted, is } => {
                write!(f, "executable is {}, not {wanted}", quoted(is))
            }
            Self::Digest { wanted, is } => write!(f, "sha256 of its executable is {is}, not {wanted}"),
            Self::UnitUnknown(why) => write!(f, "unit is not known: {why}"),
            Self::ExecutableUnknown(why) => write!(f, "executable is not known: {why}"),
            Self::DigestUnknown(why) => write!(f, "sha256 is not known: {why}"),
        }
    }
}

/// On one line, its end where it is long: that is the program's name.
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
