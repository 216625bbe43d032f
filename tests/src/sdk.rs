//! Other languages' clients: a Python environment and a folder of Node packages under `target/sdk`, made once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{needs, programs};

const PYTHON_PACKAGES: [&str; 2] = ["runloop-api-client==3.0.0", "schemathesis==4.32.5"];
const NODE_PACKAGES: [&str; 1] = ["@runloop/api-client@1.32.0"];

/// The `bin` folder of a Python environment with the official SDK and the API fuzzer, or nothing, aloud, where Python is
/// missing.
///
/// # Panics
/// If the packages cannot be installed, and under `CI` where Python is missing.
#[must_use]
pub fn python() -> Option<PathBuf> {
    needs::program("python3", "python3-venv").then(|| {
        let home = folder().join("python");
        once(&home, || {
            Command::new("python3").args(["-m", "venv"]).arg(&home).succeed();
            Command::new(home.join("bin/pip")).args(["install", "--quiet"]).args(PYTHON_PACKAGES).succeed();
        });
        home.join("bin")
    })
}

/// A folder with `node_modules` that has the official SDK, or nothing, aloud, where Node is missing.
///
/// # Panics
/// If the packages cannot be installed, and under `CI` where Node is missing.
#[must_use]
pub fn node() -> Option<PathBuf> {
    needs::program("npm", "npm").then(|| {
        let home = folder().join("node");
        once(&home, || {
            fs::create_dir_all(&home).expect("target/ is writable");
            let install = ["install", "--silent", "--no-audit", "--no-fund", "--no-save"];
            Command::new("npm").args(install).args(NODE_PACKAGES).current_dir(&home).succeed();
        });
        home
    })
}

/// A script or document of this package.
#[must_use]
pub fn file(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn folder() -> PathBuf {
    programs::target_directory().join("sdk")
}

/// Runs `install` unless an earlier run has finished it. Tests of other executables wait at the lock.
fn once(home: &Path, install: impl FnOnce()) {
    let done = home.join("installed");
    fs::create_dir_all(folder()).expect("target/ is writable");
    let lock = File::create(home.with_extension("lock")).expect("target/ is writable");
    lock.lock().expect("a lock can be waited for");
    if !done.exists() {
        install();
        File::create(done).expect("target/ is writable");
    }
}

trait Succeed {
    fn succeed(&mut self);
}

impl Succeed for Command {
    fn succeed(&mut self) {
        let output = self.output().unwrap_or_else(|error| panic!("{self:?} does not start: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} failed; it needs the package registry: {said}");
    }
}
