//! Launches at the kernel's limits and over them.

use devbox_launch_proto::MAX_ARG_STRLEN;

use crate::peer::{Peer, descriptor};
use crate::run::{environment, failure, limited_shim, run, shim, success, write_file};

#[test]
fn the_longest_possible_variable_arrives() {
    let value = "x".repeat(MAX_ARG_STRLEN - "LONG=\0".len());
    let peer = Peer::new(vec![descriptor(&[("LONG", &value)])]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), [format!("LONG={value}")]);
}

#[test]
fn a_longer_variable_is_named_with_its_size_and_nothing_else_is() {
    let value = "x".repeat(MAX_ARG_STRLEN - "LONG=\0".len() + 1);
    let peer = Peer::new(vec![descriptor(&[("LONG", &value[..]), ("SHORT", "1")])]);
    let line = failure(&run(&mut shim(&peer.socket()), ["env"]), 125);
    assert!(line.contains("LONG (131073 bytes)") && line.contains("--except"), "{line}");
    assert!(!line.contains("SHORT") && !line.contains("xx"), "{line}");
}

/// Three variables that need exactly `room` with `/bin/true` as command and argument, `more` bytes more.
fn filling(room: usize, more: usize) -> Vec<(String, String)> {
    let rest = room - 2 * "/bin/true\0".len() - 4 * size_of::<usize>() - 3 * "A=\0".len();
    let sizes = [rest / 3, rest / 3, rest - 2 * (rest / 3) + more];
    ["A", "B", "C"].into_iter().zip(sizes).map(|(name, size)| (name.to_owned(), "x".repeat(size))).collect()
}

#[test]
fn the_room_is_a_quarter_of_the_stack_limit_to_the_byte() {
    let room = 256 << 10;
    let fits = Peer::new(vec![descriptor(&filling(room, 0))]);
    success(&run(&mut limited_shim("-s 1024", &fits.socket()), ["--clear-env", "/bin/true"]));
    let exceeds = Peer::new(vec![descriptor(&filling(room, 1))]);
    let output = run(&mut limited_shim("-s 1024", &exceeds.socket()), ["--clear-env", "/bin/true"]);
    let line = failure(&output, 125);
    assert!(line.contains("need 262145 bytes, and there is room for 262144"), "{line}");
}

#[test]
fn the_largest_variables_are_named_when_all_together_are_too_many() {
    let mut variables: Vec<(String, String)> =
        (0..40).map(|n| (format!("SECRET_{n:02}"), "x".repeat(60_000))).collect();
    variables[7].1.push_str(&"x".repeat(50_000));
    let peer = Peer::new(vec![descriptor(&variables), descriptor(&variables)]);
    let line = failure(&run(&mut limited_shim("-s 8192", &peer.socket()), ["true"]), 125);
    assert!(line.contains("largest: SECRET_07 (110011 bytes), SECRET_00 (60011 bytes)"), "{line}");
    assert!(line.contains("--only") && line.contains("ulimit -s") && line.len() < 400, "{line}");
    success(&run(&mut limited_shim("-s 32768", &peer.socket()), ["true"]));
}

#[test]
fn an_excess_that_only_the_kernel_can_count_is_reported_in_the_same_way() {
    // A script's interpreter and its argument take room that the program cannot know of.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("true");
    write_file(&script, &format!("#!/bin/true {}\n", "a".repeat(100)), 0o755);
    let path_len = script.to_str().unwrap().len() + 1;
    let mut variables = filling(256 << 10, 0);
    let shorter = variables[0].1.len() - 2 * (path_len - "/bin/true\0".len());
    variables[0].1.truncate(shorter);
    let peer = Peer::new(vec![descriptor(&variables)]);
    let mut shim = limited_shim("-s 1024", &peer.socket());
    let line = failure(&run(shim.arg("--clear-env"), [&script]), 125);
    assert!(line.contains("too large for the kernel") && line.contains("largest: "), "{line}");
}
