//! Where the programs under test are: beside the test executable, built in the same profile, or in the folder that
//! `FOLDER` names. Only the shim is always the release build: without libc, as it is shipped, it exists in no other profile.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The environment variable with the folder of other builds of the server and the daemon: `cargo xtask test` runs the core of
/// the end-to-end tests with the release build, which is what users run.
const FOLDER: &str = "DEVBOX_SECRETS_TESTED_PROGRAMS";

/// `devbox-secrets-server`.
#[must_use]
pub fn server() -> PathBuf {
    tested("devbox-secrets-server")
}

/// `devbox-secretsd`.
#[must_use]
pub fn daemon() -> PathBuf {
    tested("devbox-secretsd")
}

/// `devbox-secrets-test-peer`: hostile peers, and such as are in a unit.
#[must_use]
pub fn test_peer() -> PathBuf {
    built("devbox-secrets-test-peer")
}

/// `devbox-exec`, brought up to date at the first call: it is small.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(build_shim).clone()
}

/// In a folder of its own, so that it waits for no other build.
fn build_shim() -> PathBuf {
    let folder = target_directory().join("shim");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--package", "devbox-exec", "--target-dir"]);
    command.arg(&folder).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo is where this test was built");
    assert!(output.status.success(), "the shim does not build: {}", String::from_utf8_lossy(&output.stderr));
    folder.join("release/devbox-exec")
}

/// The folder `target/` that this test was built in.
#[must_use]
pub fn target_directory() -> PathBuf {
    profile_directory().parent().expect("a profile's folder is in target/").to_owned()
}

fn tested(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os(FOLDER) else { return built(name) };
    let path = PathBuf::from(folder).join(name);
    assert!(path.is_file(), "{} is missing: {FOLDER} names another folder", path.display());
    path
}

fn built(name: &str) -> PathBuf {
    let path = profile_directory().join(name);
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, which builds it first", path.display());
    path
}

/// A test executable is `target/<profile>/deps/<test>`.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("/proc/self/exe can be read");
    test.ancestors().nth(2).expect("the executable is two folders deep").to_owned()
}
