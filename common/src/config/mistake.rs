//! Mistakes in a configuration, each with its line and its remedy, none with the value at fault.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, counted from 1. `None` if it is in no line: a missing key, or a wrong flag.
    pub line: Option<usize>,
    /// The fault and its remedy, on one line.
    pub text: String,
}

/// All mistakes of one configuration, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// In the order of their lines; those without a line come last.
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for Mistakes {}

/// One line each, as compilers print them: `FILE:LINE: text`.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&self.file, mistake.line) {
                (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
                (Some(file), None) => write!(f, "{}: ", file.display())?,
                (None, _) => {}
            }
            f.write_str(&mistake.text)?;
        }
        Ok(())
    }
}
