//! Temporary files in memory: what is fuzzed writes often, and waits for each write.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A new directory, which only this user may enter.
pub(crate) fn directory() -> io::Result<TempDir> {
    TempDir::new_in(place())
}

/// A new file without a name, which only this user may read or write.
pub(crate) fn file() -> io::Result<File> {
    tempfile::tempfile_in(place())
}

/// `TMPDIR` wins over memory.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let chosen = std::env::var_os("TMPDIR").is_some() || !memory.is_dir();
    if chosen { std::env::temp_dir() } else { memory.to_owned() }
}
