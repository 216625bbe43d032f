//! A script on a machine with one secret's value.

use devbox_secrets_tests::canary;
use devbox_secrets_tests::machine::{Ended, Machine};

/// Runs `script` on `machine`, with `$value` a random value, and returns both.
///
/// # Panics
/// If the script fails, or the value is in the machine's journal.
pub(crate) async fn run(machine: Machine, script: &str) -> (Ended, String) {
    let value = canary::random_letters(32);
    let ended = machine.run(&format!("value={value}\n{script}")).await.success();
    assert!(!ended.text("journal").contains(&value), "a value is in the journal");
    (ended, value)
}
