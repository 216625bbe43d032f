//! The help of `cargo xtask` and its commands, as reviewed files in `tests/data/help/cargo-xtask`.
//!
//! After a change of a text: `DEVBOX_SECRETS_RENEW_SNAPSHOTS=1 cargo test -p xtask --test help`, then review the difference.

use std::path::Path;

use devbox_secrets_tests::snapshot::{agree, all_help};

#[test]
fn the_help_is_as_reviewed() {
    // `cargo xtask bench --help` builds the bench first, which prints its help itself.
    let texts = all_help("cargo xtask", Path::new(env!("CARGO_BIN_EXE_xtask")), &["bench"]);
    agree("help/cargo-xtask", &texts);
}
