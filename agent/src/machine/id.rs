//! machine-id(5), read again only if its file was replaced or written.

use std::fs;
use std::path::Path;

use crate::sys::Stamp;

const LEN: usize = 32;

#[derive(Debug)]
pub(super) struct IdFile {
    stamp: Option<Stamp>,
    id: Option<String>,
}

impl IdFile {
    pub(super) fn read(path: &Path) -> Self {
        // The stamp first: a write in between is read again.
        let stamp = Stamp::of(path);
        Self { stamp, id: read(path) }
    }

    pub(super) fn is_known(&self) -> bool {
        self.id.is_some()
    }

    /// Whether the id changed. A file that is gone, or not written yet, is no change.
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

/// The id; `None` for an empty file or `uninitialized`, which images of machines have.
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
    fn a_missing_or_rewritten_file_with_the_same_id_is_no_change() {
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
