//! The server's configuration file.

use std::path::Path;

use devbox_secrets_server::config::{Config, Mistakes};

use crate::CANARY;

/// Parses the file, with and without systemd's credentials.
///
/// # Panics
/// If a mistake has no text or a line that does not exist, or repeats a value.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for credentials in [None, Some(Path::new("/run/credentials/server"))] {
        match Config::parse(text, credentials) {
            Ok(config) => assert!(config.state.directory.is_absolute()),
            Err(mistakes) => check_mistakes(text, &mistakes),
        }
    }
}

fn check_mistakes(text: &str, mistakes: &Mistakes) {
    let mistakes = &mistakes.mistakes;
    assert!(!mistakes.is_empty(), "refused without a reason");
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for mistake in mistakes {
        assert!(mistake.line.is_none_or(|line| (1..=lines).contains(&line)), "no such line: {mistake:?}");
        let one_line = !mistake.text.is_empty() && !mistake.text.chars().any(char::is_control);
        assert!(one_line, "not one line: {:?}", mistake.text);
        // A mistake may name keys and sections, never a value.
        let names_a_key = mistake.text.starts_with("unknown ");
        assert!(names_a_key || !mistake.text.contains(CANARY), "a mistake repeats a value: {mistake:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_a_file_without_mistakes() {
        let full = include_str!("../corpus/server_config/full");
        assert_eq!(Config::parse(full, None).err(), None);
    }
}
