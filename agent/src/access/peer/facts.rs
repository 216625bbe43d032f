//! The facts about a process that rules ask for.

use std::sync::Mutex;

use super::digest::Remembered;
use super::{Cgroups, Digest, Executable, Obstacle, Peer, Process, UnitName, UnitPattern};

/// A fact, or why it is unknown.
pub type Learned<T> = Result<T, Obstacle>;

/// The facts that rules ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Whether it belongs to one of these units.
    pub units: Vec<UnitPattern>,
    /// Whether it runs one of these files.
    pub executables: Vec<ExecutableQuestion>,
    /// Its executable even if it is none of those, for explanations.
    pub any_executable: bool,
}

/// A program that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutableQuestion {
    /// Its absolute path.
    pub path: String,
    /// Whether a rule names its digest.
    pub digest: bool,
}

impl Questions {
    /// Asks whether the process runs the file at `path`, and for the file's contents if `digest`.
    pub fn add_executable(&mut self, path: &str, digest: bool) {
        match self.executables.iter_mut().find(|question| question.path == path) {
            Some(question) => question.digest |= digest,
            None => self.executables.push(ExecutableQuestion { path: path.to_owned(), digest }),
        }
    }

    /// Whether no fact is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.executables.is_empty() && !self.any_executable
    }
}

/// The facts about a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its ids at the connection.
    pub peer: Peer,
    /// Its unit of the system manager; `None` if it is in no unit that was asked for.
    pub unit: Learned<Option<UnitName>>,
    /// Its executable.
    pub executable: Learned<Executable>,
}

impl Facts {
    /// The ids alone, as of the connection.
    #[must_use]
    pub const fn of(peer: Peer) -> Self {
        Self { peer, unit: Err(Obstacle::NotAsked), executable: Err(Obstacle::NotAsked) }
    }

    /// The ids alone: `obstacle` hides all else.
    #[must_use]
    pub const fn unknown(peer: Peer, obstacle: Obstacle) -> Self {
        Self { peer, unit: Err(obstacle), executable: Err(obstacle) }
    }

    /// Answers `questions` about `process`. It reads files, so it must not run on the event loop.
    /// `before_file` is called before a call to a file system that may never return.
    pub(super) fn learn(
        peer: Peer,
        process: &Process,
        questions: &Questions,
        cgroups: &Cgroups,
        remembered: &Mutex<Remembered>,
        before_file: impl FnOnce(),
    ) -> Self {
        let mut facts = Self::of(peer);
        if process.pid() <= 0 {
            return Self::unknown(peer, Obstacle::OtherNamespace);
        }
        if !questions.units.is_empty() {
            let is_asked = |unit: &UnitName| questions.units.iter().any(|pattern| pattern.matches(unit));
            facts.unit = Ok(cgroups.unit_of(process.pid(), is_asked));
        }
        if questions.any_executable || !questions.executables.is_empty() {
            facts.executable = Executable::of(process, questions, remembered, before_file);
        }
        // This check comes last: all that was read by PID was about this process only if it still
        // runs.
        if process.is_running() { facts } else { Self::unknown(peer, Obstacle::Ended) }
    }

    /// The digest of its executable.
    ///
    /// # Errors
    /// Why it is unknown.
    pub fn digest(&self) -> Learned<Digest> {
        self.executable.as_ref().map_err(|obstacle| *obstacle)?.digest
    }
}
