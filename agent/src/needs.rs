//! What a test of this crate needs of its machine. A test that goes without it says so, past the capture of tests' output, and
//! under `CI` fails instead: there nothing is skipped.

use std::io::{self, Write};

/// Says that the running test, or a part of it, is skipped, because something is not there.
///
/// # Panics
/// Where `CI` is set.
pub(crate) fn skipped(needs: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os("CI").is_none(), "{test} needs {needs}, and CI skips nothing");
    let _ = writeln!(io::stderr(), "{test}: skipped: needs {needs}");
}

/// Whether this test runs as root; says so where not.
pub(crate) fn root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skipped("root");
    }
    is_root
}
