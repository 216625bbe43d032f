//! Why a rule is not about a process.

use std::fmt;

use crate::peer::{Digest, Obstacle, UnitName, UnitPattern};

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
                write!(f, "executable is {}, not {wanted}", is.escape_default())
            }
            Self::Digest { wanted, is } => write!(f, "sha256 of its executable is {is}, not {wanted}"),
            Self::UnitUnknown(why) => write!(f, "unit is not known: {why}"),
            Self::ExecutableUnknown(why) => write!(f, "executable is not known: {why}"),
            Self::DigestUnknown(why) => write!(f, "sha256 is not known: {why}"),
        }
    }
}
