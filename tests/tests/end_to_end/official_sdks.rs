//! The platform's own clients, unmodified, do not notice that this is another server.

use std::process::Command;

use devbox_secrets_tests::process;
use devbox_secrets_tests::sdk;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

async fn runs_to_its_end(world: &World, mut command: Command) {
    command
        .env("RUNLOOP_BASE_URL", &world.server.ready.api)
        .env("RUNLOOP_API_KEY", &world.server.ready.token);
    let output = process::run_within(wait::LONG_DEADLINE, command, b"").await.success();
    assert_eq!(output.text().trim_end(), "done");
}

#[tokio::test]
async fn the_official_python_sdk_works_unmodified() {
    let Some(python) = sdk::python() else { return };
    let world = World::start().await;
    let mut command = Command::new(python.join("python"));
    command.arg(sdk::file("sdk/official_sdk.py"));
    runs_to_its_end(&world, command).await;
}

/// Node looks for packages beside the script, so the script is copied to where they are.
#[tokio::test]
async fn the_official_typescript_sdk_works_unmodified() {
    let Some(node) = sdk::node() else { return };
    let world = World::start().await;
    let script = node.join("official_sdk.mjs");
    std::fs::copy(sdk::file("sdk/official_sdk.mjs"), &script).unwrap();
    let mut command = Command::new("node");
    command.arg(script);
    runs_to_its_end(&world, command).await;
}
