//! The boot id (random(4)).

use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's boot id. Hidden under `ProcSubset=pid`.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The credential with which the service manager passes the boot id at the daemon's start.
const CREDENTIAL: &str = "devbox-secrets.boot-id";

/// The current boot id; `None` if it is hidden.
pub(super) fn now() -> Option<String> {
    read(Path::new(BOOT_ID))
}

/// The current boot id or, if it is hidden, that of the daemon's start.
pub(super) fn id() -> Option<String> {
    now().or_else(|| read(&credential()?))
}

fn credential() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL))
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
