//! Which boot this is (random(4)).

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel says it; not under `ProcSubset=pid`.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What the service manager said at the daemon's start, as a credential of this name.
const CREDENTIAL: &str = "devbox-secrets.boot-id";

/// Its UUID as it is now; none where the kernel's word is hidden.
pub(super) fn now() -> Option<String> {
    read(Path::new(BOOT_ID))
}

/// Its UUID, at the daemon's start at the latest.
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
