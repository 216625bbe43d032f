//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::UpkeepError;

/// A file in the making, beside its place. Dropped before it is put there, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// An empty file (mode 0600) that will be `place`.
    pub(super) fn new(place: &Path) -> Result<Self, UpkeepError> {
        let mut name = place.as_os_str().to_owned();
        name.push(".partial");
        let draft = Self { path: name.into(), place: place.to_owned() };
        // What a killed run left behind.
        let _ = fs::remove_file(&draft.path);
        create(&draft.path).map_err(|source| file_error(&draft.path, source))?;
        Ok(draft)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the whole file on disk and then in its place, where nothing is.
    pub(super) fn keep(self) -> Result<(), UpkeepError> {
        let placed = File::open(&self.path).and_then(|file| file.sync_all()).and_then(|()| self.place());
        match placed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(UpkeepError::FileExists(self.place.clone()))
            }
            placed => placed.map_err(|source| file_error(&self.place, source)),
        }
    }

    /// A link never replaces anything, which a renaming would.
    fn place(&self) -> io::Result<()> {
        fs::hard_link(&self.path, &self.place)?;
        fs::remove_file(&self.path)?;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Kept, or past help.
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn file_error(path: &Path, source: io::Error) -> UpkeepError {
    UpkeepError::File { path: path.to_owned(), source }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
