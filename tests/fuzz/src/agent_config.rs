//! The daemon's configuration file, rules included.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use devbox_secretsd::config::{Mistake, Mistakes, Overrides, load};

use crate::{CANARY, scratch};

thread_local! {
    /// A file without a name, in memory, which only its owner may change: another is refused unread.
    static FILE: File = scratch::file().expect("/dev/shm or /tmp takes a file");
}

/// Loads the file by itself.
///
/// # Panics
/// If a mistake has no text, more than one line or a line that does not exist, or repeats a value; if accepted settings
/// do not print as they were written.
pub fn check(bytes: &[u8]) {
    let path = FILE.with(|file| written(file, bytes));
    match load(Some(&path), &Overrides::default()) {
        Ok(settings) => {
            assert_eq!(settings.server.url.to_string().parse(), Ok(settings.server.url));
            assert!(settings.sockets.launch.is_absolute() && settings.sockets.admin.is_absolute());
            assert_ne!(settings.sockets.launch, settings.sockets.admin);
        }
        Err(Mistakes { mistakes, .. }) => check_mistakes(bytes, &mistakes),
    }
}

/// Writes the file and returns a path to it.
fn written(file: &File, bytes: &[u8]) -> PathBuf {
    file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).expect("the file can be written");
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn check_mistakes(bytes: &[u8], mistakes: &[Mistake]) {
    assert!(!mistakes.is_empty(), "refused without a reason");
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    for Mistake { line, text } in mistakes {
        assert!(line.is_none_or(|line| (1..=lines).contains(&line)), "no such line: {line:?} {text}");
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "not one line: {text:?}");
        assert!(may_quote(text) || !text.contains(CANARY), "a mistake repeats a value: {text}");
    }
}

/// A mistake may name keys, and a rule's users, units and patterns: they are no secrets.
fn may_quote(text: &str) -> bool {
    let about_rules = ["[[rule]]", "[[credential]]", "rule "].iter().any(|start| text.starts_with(start));
    about_rules || text.starts_with("unknown ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_a_file_without_mistakes() {
        let file = scratch::file().unwrap();
        let path = written(&file, include_bytes!("../corpus/agent_config/full"));
        assert_eq!(load(Some(&path), &Overrides::default()).err(), None);
    }
}
