//! machine-id(5), read again only where its file is another, or was written.

use std::fs;
use std::path::Path;

use crate::sys::Stamp;

/// Hexadecimal digits of a machine id.
const LEN: usize = 32;

/// What is known of the file and what it holds.
#[derive(Debug)]
pub(super) struct IdFile {
    stamp: Option<Stamp>,
    id: Option<String>,
}

impl IdFile {
    pub(super) fn read(path: &Path) -> Self {
        // In this order: what is written in between is read again.
        let stamp = Stamp::of(path);
        Self { stamp, id: read(path) }
    }

    pub(super) fn is_known(&self) -> bool {
        self.id.is_some()
    }

    /// Whether it holds another id. One that is gone, or not written yet, is none.
    pub(super) fn has_changed(&mut self, path: &Path) -> bool {
        let stamp = Stamp::of(path);
        if stamp == self.stamp {
            return false;
        }
        let now = read(path);
        let has_changed = now.is_some() && self.id.is_some() && now != self.id;
        if !has_changed {
            self.stamp = stamp;
            self.id = now.or(self.id.take());
        }
        has_changed
    }
}

/// The id; none in a file that says `uninitialized`, or is empty, as images have it.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    let is_id = id.len() == LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_or_written_anew_with_the_same_id_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        let id = "0123456789abcdef".repeat(2);
        fs::write(&path, &id).unwrap();
        let mut file = IdFile::read(&path);
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed(&path));
        fs::write(&path, "uninitialized\n").unwrap();
        assert!(!file.has_changed(&path));
        fs::write(&path, format!("{id}\n")).unwrap();
        assert!(!file.has_changed(&path));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "f".repeat(LEN)).unwrap();
        assert!(file.has_changed(&path), "an id that was taken away in between is remembered");
    }
}
