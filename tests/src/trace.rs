//! A condition that holds after every fault: no value is in a log or a file, or in a process that may not have it.

use nix::unistd::geteuid;

use crate::canary::Canary;
use crate::daemon::Daemon;
use crate::memory::{in_command_lines, in_files, in_memory};
use crate::world::World;

/// Looks for each value in every file of the world (state, logs at their most talkative, sockets' folders), in every command
/// line of the machine, and, as root, in whatever can be read of the daemons' memory.
///
/// # Panics
/// If one is found, or if there was no log to search.
pub fn leaves_no_trace(world: &World, daemons: &[&Daemon], values: &[&Canary]) {
    for daemon in daemons {
        assert!(daemon.program.log().contains("INFO"), "there is a log to look into");
    }
    for value in values {
        assert_eq!(in_files(world.path(), value), []);
        assert_eq!(in_command_lines(value), []);
        if geteuid().is_root() {
            daemons.iter().for_each(|daemon| assert_eq!(in_memory(daemon.program.pid(), value).found, []));
        }
    }
}
