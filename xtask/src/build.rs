//! Building the three programs, with cargo's own progress on the terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Which profile to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build: demo and tests.
    Dev,
    /// The shipped programs, for benchmarks.
    Release,
}

/// Where the built programs are.
#[derive(Debug)]
pub struct Programs {
    /// `devbox-secrets-server`.
    pub server: PathBuf,
    /// `devbox-secretsd`.
    pub daemon: PathBuf,
    /// `devbox-exec`, always of the release profile.
    pub shim: PathBuf,
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// `cargo` as the user started it, in the workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Runs `command` to its end.
///
/// # Errors
/// When it cannot be started, or fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", program.display());
    }
    Ok(())
}

/// Builds the three programs and says where they are.
///
/// # Errors
/// When the build fails; cargo has said why.
pub fn programs(profile: Profile) -> Result<Programs> {
    let mut command = cargo();
    command.args(["build", "-p", "devbox-secrets-server", "-p", "devbox-secretsd"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    succeed(&mut command).context("the programs do not build")?;
    // Only a release build of the shim starts without libc, as it is shipped; it is small.
    succeed(cargo().args(["build", "--release", "-p", "devbox-exec"])).context("the shim does not build")?;
    let directory = target_directory().join(match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    });
    Ok(Programs {
        server: directory.join("devbox-secrets-server"),
        daemon: directory.join("devbox-secretsd"),
        shim: target_directory().join("release/devbox-exec"),
    })
}

/// Cargo's target directory: this program runs from `<target>/<profile>/xtask`.
pub fn target_directory() -> PathBuf {
    let own = std::env::current_exe().ok();
    own.as_deref()
        .and_then(|own| own.parent()?.parent())
        .map_or_else(|| workspace().join("target"), Path::to_path_buf)
}
