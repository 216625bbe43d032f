//! A fuzzing API tester (Schemathesis) holds the server to both documents: the seed's, and the server's own.

use std::path::Path;
use std::process::Command;

use devbox_secrets_tests::process;
use devbox_secrets_tests::sdk;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

/// A run of the fuzzer in a folder of its own, where it also writes. `seconds` is its budget.
fn fuzzer(bin: &Path, world: &World, document: &str, seconds: &str) -> Command {
    let mut command = Command::new(bin.join("schemathesis"));
    command.arg("--config-file").arg(sdk::file("sdk/schemathesis.toml"));
    command.arg("run").arg(document).args(["--url", &world.server.ready.api, "--max-time", seconds]);
    command.arg("--header").arg(format!("Authorization: Bearer {}", world.server.ready.token));
    command.arg("--no-color").current_dir(world.path());
    command
}

/// Every check but one: `ensure_resource_availability` takes only `DELETE` for a deletion, and so finds each secret
/// missing that `POST …/delete` has deleted before. It runs below, without deletions.
fn every_check(mut command: Command) -> Command {
    command.args(["--checks", "all", "--exclude-checks", AVAILABILITY]);
    command
}

const AVAILABILITY: &str = "ensure_resource_availability";

/// The seed's document, and what it leaves out.
fn by_the_seed(bin: &Path, world: &World, seconds: &str) -> Command {
    let document = sdk::file("data/secrets-api.openapi.yaml");
    with_hooks("seed_hooks", fuzzer(bin, world, document.to_str().unwrap(), seconds))
}

fn with_hooks(module: &str, mut command: Command) -> Command {
    command.env("SCHEMATHESIS_HOOKS", module).env("PYTHONPATH", sdk::file("sdk"));
    command
}

async fn finds_nothing(command: Command) {
    let output = process::run_within(wait::LONG_DEADLINE, command, b"").await;
    assert_eq!(output.status, 0, "{}\n{}", output.text(), output.stderr);
}

#[tokio::test]
async fn fuzzing_by_the_seeds_document_finds_nothing() {
    let Some(bin) = sdk::python() else { return };
    let world = World::start().await;
    finds_nothing(every_check(by_the_seed(&bin, &world, "15"))).await;
}

#[tokio::test]
async fn fuzzing_by_the_servers_own_document_finds_nothing() {
    let Some(bin) = sdk::python() else { return };
    let world = World::start().await;
    let document = format!("{}/openapi.json", world.server.ready.api);
    finds_nothing(every_check(with_hooks("own_hooks", fuzzer(&bin, &world, &document, "20")))).await;
}

#[tokio::test]
async fn every_sequence_of_operations_keeps_created_secrets_until_they_are_deleted() {
    let Some(bin) = sdk::python() else { return };
    let world = World::start().await;
    let mut command = by_the_seed(&bin, &world, "10");
    command.args([
        "--checks",
        AVAILABILITY,
        "--phases",
        "stateful",
        "--exclude-operation-id",
        "deleteSecret",
    ]);
    finds_nothing(command).await;
}
