//! Mistakes in a configuration: all of them at once, each with its place and its remedy, none with a value.

use std::fmt;
use std::path::PathBuf;

use super::document::one_line;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, counted from 1; none for what stands in no line.
    pub line: Option<usize>,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// Every mistake of one configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// In order of their lines.
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for Mistakes {}

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

/// Collects mistakes while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<Mistake>);

impl Collector {
    /// A mistake in a line.
    pub(super) fn at(&mut self, line: usize, text: impl Into<String>) {
        self.0.push(Mistake { line: Some(line), text: one_line(&text.into()) });
    }

    /// A mistake in no line: something is missing, or a flag is wrong.
    pub(super) fn anywhere(&mut self, text: impl Into<String>) {
        self.0.push(Mistake { line: None, text: one_line(&text.into()) });
    }

    /// What was read if nothing is wrong with it, else all that was collected.
    pub(super) fn finish<T>(mut self, file: Option<PathBuf>, read: Option<T>) -> Result<T, Mistakes> {
        self.0.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        match read {
            Some(read) if self.0.is_empty() => Ok(read),
            _ => Err(Mistakes { file, mistakes: self.0 }),
        }
    }
}
