//! What rules ask about a process, and what is known of it.

use std::sync::Mutex;

use super::digest::Remembered;
use super::{Cgroups, Digest, Executable, Obstacle, Peer, Process, UnitName, UnitPattern};

/// What was to be learned, or why it is not known.
pub type Learned<T> = Result<T, Obstacle>;

/// What rules ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Is it in one of these units?
    pub units: Vec<UnitPattern>,
    /// Does it run one of these?
    pub executables: Vec<ExecutableQuestion>,
    /// What does it run, if none of them?
    pub any_executable: bool,
}

/// A program that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutableQuestion {
    /// Its path: absolute.
    pub path: String,
    /// Whether its contents matter.
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

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.executables.is_empty() && !self.any_executable
    }
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who connected.
    pub peer: Peer,
    /// Its unit of the system manager; none where it is in none that was asked for.
    pub unit: Learned<Option<UnitName>>,
    /// What it runs.
    pub executable: Learned<Executable>,
}

impl Facts {
    /// What the kernel said at the connection, and nothing more.
    #[must_use]
    pub const fn of(peer: Peer) -> Self {
        Self { peer, unit: Err(Obstacle::NotAsked), executable: Err(Obstacle::NotAsked) }
    }

    /// Nothing but `peer` is known, because of `obstacle`.
    #[must_use]
    pub const fn unknown(peer: Peer, obstacle: Obstacle) -> Self {
        Self { peer, unit: Err(obstacle), executable: Err(obstacle) }
    }

    /// Answers `questions` about `process`. May read files: not for an event loop. `before_file` is called before a file system
    /// is asked that may never answer.
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
        // Now, and not before: what was read under a number was read of this process if it still has it.
        if process.is_running() { facts } else { Self::unknown(peer, Obstacle::Ended) }
    }

    /// The digest of what it runs.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn digest(&self) -> Learned<Digest> {
        self.executable.as_ref().map_err(|obstacle| *obstacle)?.digest
    }
}
