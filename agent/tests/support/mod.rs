//! A control plane for tests: real TLS, real certificates, real HPKE; only its answers are scripted.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod control_plane;
pub mod daemon;
pub mod launch;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration in a folder of its own.
pub fn config_file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    write_config(&path, text);
    (dir, path)
}

/// Writes a configuration that only its owner may read.
pub fn write_config(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}
