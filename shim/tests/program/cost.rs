//! The cost of a launch beside the second `execve(2)`.

use std::process::Command;

use crate::peer::{Peer, descriptor};
use crate::run::{run, shim, success};

/// Most page faults that a launch may add: code, stack, and one page of secrets, and what the kernel touches itself.
const MOST_FAULTS: u64 = 7;
const LAUNCHES: usize = 10;

/// Minor faults of the process that prints its own stat file: the tenth field, proc_pid_stat(5).
fn faults(stat: &[u8]) -> u64 {
    let text = std::str::from_utf8(stat).unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse().unwrap()
}

/// The fewest of some runs: where the kernel puts the stack differs each time.
fn fewest(mut launch: impl FnMut() -> Vec<u8>) -> u64 {
    (0..LAUNCHES).map(|_| faults(&launch())).min().unwrap()
}

#[test]
fn a_launch_touches_few_pages_of_its_own() {
    let arguments = ["/bin/cat", "/proc/self/stat"];
    let bare = fewest(|| {
        let mut command = Command::new(arguments[0]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.arg(arguments[1]).output().unwrap().stdout
    });
    let peer = Peer::new((0..LAUNCHES).map(|_| descriptor(&[("A", "1")])).collect());
    let launched = fewest(|| success(&run(&mut shim(&peer.socket()), arguments)).to_vec());
    assert!(launched - bare <= MOST_FAULTS, "{launched} page faults, and {bare} without devbox-exec");
}
