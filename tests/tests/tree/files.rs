//! The files of the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A text file, by its path below the root.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn extension(&self) -> &str {
        self.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
    }
}

/// All files with one of these extensions that Git tracks, or would track if they were added.
pub(crate) fn with_extension(extensions: &[&str]) -> Vec<File> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    // A checkout may belong to another user than the one who runs its tests.
    git.env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", root());
    let listed = git.output().expect("git lists the files of the checkout");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut files: Vec<File> = paths
        .filter(|path| path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)))
        // A deleted file stays in Git's index until the deletion is staged.
        .filter_map(|path| fs::read_to_string(root().join(&path)).ok().map(|text| File { path, text }))
        .collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(files.len() > 5, "the checkout has more files with {extensions:?}");
    files
}
