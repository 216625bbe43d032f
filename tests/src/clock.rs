//! A program's calendar clock, moved by libfaketime. Clocks that count from boot stay as they are: leases and timers are
//! theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A calendar clock that can be moved while its program runs.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    /// How far it is off, as faketime(1) writes it.
    offset: PathBuf,
}

impl Clock {
    /// A clock that is right so far. `folder`: one that the program may read, for the file that tells the time.
    ///
    /// # Panics
    /// If `folder` cannot be made.
    #[must_use]
    pub fn new(library: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the test's directory is writable");
        let clock = Self { library: library.to_owned(), offset: folder.join("clock") };
        clock.is_off("+0s");
        clock
    }

    /// From now on the clock is `offset` off: `+10h`, `-4m`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn is_off(&self, offset: &str) {
        // Replaced as a whole: the program reads it at each look at the clock.
        let next = self.offset.with_extension("next");
        fs::write(&next, offset).expect("the test's directory is writable");
        fs::rename(&next, &self.offset).expect("a file of ours can be renamed");
    }

    /// The same program with this clock.
    #[must_use]
    pub fn of(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}
