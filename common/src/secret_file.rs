//! Secrets in files: which permissions keep one from everybody but its program.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

/// Permission bit of reading by the group.
const GROUP_READ: u32 = 0o040;

/// The permission bits of an open file if they let anybody but this program at its secret, else
/// `None`.
///
/// A group may never write, and others may do nothing. Reading by the group is fine in two cases,
/// because there the bit stands for this process alone and its user cannot change it:
/// - the file lies in systemd's `$CREDENTIALS_DIRECTORY`, where the bit is the mask of an ACL for
///   the unit's user (systemd 254 and later);
/// - root owns the file and this process is another user, so that its group is how it may read: a
///   Kubernetes secret volume with `fsGroup`.
///
/// # Errors
/// The file's metadata cannot be read.
pub fn open_to_others(file: &File, path: &Path) -> io::Result<Option<u32>> {
    let metadata = file.metadata()?;
    let (mode, owner) = (metadata.mode() & 0o777, Uid::from_raw(metadata.uid()));
    let is_private = match mode & 0o077 {
        0 => true,
        GROUP_READ => is_credential(path) || is_shared_by_root(owner, geteuid()),
        _ => false,
    };
    Ok((!is_private).then_some(mode))
}

/// Whether `path` names a file directly inside `$CREDENTIALS_DIRECTORY` (systemd.exec(5)), by
/// whatever links.
fn is_credential(path: &Path) -> bool {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let resolved = |path: &Path| path.canonicalize().ok();
    let Some((directory, file)) = directory.as_deref().and_then(resolved).zip(resolved(path)) else {
        return false;
    };
    file.parent() == Some(&directory)
}

fn is_shared_by_root(owner: Uid, user: Uid) -> bool {
    owner.is_root() && !user.is_root()
}
