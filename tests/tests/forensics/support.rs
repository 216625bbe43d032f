//! Shared by the subjects: a control plane and a daemon that know a canary, and processes launched with it.

use std::fs;
use std::process::{Command, Stdio};

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::process::Program;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

/// The agent's user.
pub(crate) const AGENT: u32 = 65_534;

/// Lets the agent's user, and root, have everything.
const RULES: &str = "[[rule]]
name = \"the agent\"
uid = 65534
env = [\"*\"]

[[rule]]
name = \"root\"
uid = 0
env = [\"*\"]
";

/// A world whose daemon serves the agent's user.
pub(crate) async fn world_with(canary: &Canary) -> (World, Daemon) {
    let world = World::with_secret("CANARY", canary.value()).await;
    let devbox = world.devbox("box").await;
    let daemon = world.setup(&devbox).config(RULES).start().await;
    (world, daemon)
}

/// A process that was launched through the shim and waits, and its log's folder is the world's.
pub(crate) async fn launched(world: &World, launch: &Launch) -> Program {
    started(world, &mut launch.command(&["/usr/bin/sleep", "600"])).await
}

/// Starts a command that becomes `sleep`, and waits until it is one.
pub(crate) async fn started(world: &World, command: &mut Command) -> Program {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut program = Program::start(command, &world.path().join("log/launched.log"));
    wait::until("the launched process", async || {
        assert!(program.ended().is_none(), "the launch failed:\n{}", program.tail());
        (name(program.pid()) == "sleep").then_some(())
    })
    .await;
    program
}

/// The kernel's name for a process; empty if it is gone.
pub(crate) fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
