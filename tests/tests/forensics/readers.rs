//! Other processes, root's and the agent's, look into ours: the value is in the launched process alone.

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::forensics::reader::{Outcomes, can_read, outcomes};
use devbox_secrets_tests::forensics::trace::Trace;
use devbox_secrets_tests::memory::in_memory;
use devbox_secrets_tests::needs;
use devbox_secrets_tests::process::Program;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

use crate::support::{AGENT, launched, started, world_with};

const ROOT: u32 = 0;
/// A user that is neither root nor the agent.
const STRANGER: u32 = 65_533;
/// `execve` and `execveat`, as `/proc/PID/syscall` has them.
const EXECVE: [&str; 2] = ["59 ", "322 "];

/// The answer to a reader without any right: it does not learn the addresses either.
fn refused(outcomes: &Outcomes) -> bool {
    let anybody = |way: &str| way == "cmdline";
    outcomes.iter().all(|(way, outcome)| outcome.starts_with('E') || (anybody(way) && outcome == "clean"))
}

fn found_by(outcomes: &Outcomes) -> Vec<&str> {
    outcomes.iter().filter(|(_, outcome)| *outcome == "found").map(|(way, _)| way.as_str()).collect()
}

async fn launched_as_the_agent(canary: &Canary) -> (World, Daemon, Program) {
    let (world, daemon) = world_with(canary).await;
    let program = launched(&world, &world.launch_as(AGENT, &daemon)).await;
    (world, daemon, program)
}

#[tokio::test]
async fn root_finds_a_value_in_no_process_but_the_launched_one() {
    if !can_read() {
        return;
    }
    let canary = Canary::random();
    let (world, daemon, program) = launched_as_the_agent(&canary).await;
    let ways_in = ["environ", "mem", "process_vm_readv", "ptrace"];
    assert_eq!(
        found_by(&outcomes(ROOT, program.pid(), &canary).await),
        ways_in,
        "the search finds what is there"
    );

    let ours = [("daemon", daemon.program.pid()), ("server", world.server.program.pid())];
    for (name, pid) in ours {
        let outcomes = outcomes(ROOT, pid, &canary).await;
        assert_eq!(found_by(&outcomes), [""; 0], "{name}: {outcomes:?}");
        assert_eq!(outcomes["mem"], "clean", "{name}: all that can be read was read");
    }
}

/// Plainly: a process's environment is open to every process of the same user, outside the template unit.
#[tokio::test]
async fn the_agents_user_finds_a_value_in_the_launched_process_alone() {
    if !can_read() {
        return;
    }
    let canary = Canary::random();
    let (world, daemon, program) = launched_as_the_agent(&canary).await;
    let sibling_launch = world.launch_as(AGENT, &daemon).options(&["--except", "CANARY"]);
    let sibling = launched(&world, &sibling_launch).await;

    assert!(found_by(&outcomes(AGENT, program.pid(), &canary).await).contains(&"environ"), "as root does");
    assert_eq!(found_by(&outcomes(AGENT, sibling.pid(), &canary).await), [""; 0], "a sibling without it");
    for pid in [daemon.program.pid(), world.server.program.pid()] {
        let outcomes = outcomes(AGENT, pid, &canary).await;
        assert!(refused(&outcomes), "{outcomes:?}");
    }
}

#[tokio::test]
async fn another_user_finds_it_nowhere() {
    if !can_read() {
        return;
    }
    let canary = Canary::random();
    let (world, daemon, program) = launched_as_the_agent(&canary).await;
    for pid in [program.pid(), daemon.program.pid(), world.server.program.pid()] {
        let outcomes = outcomes(STRANGER, pid, &canary).await;
        assert!(refused(&outcomes), "{outcomes:?}");
    }
}

/// A tracer holds the shim for a while where it becomes the command.
#[tokio::test]
async fn root_cannot_read_the_value_out_of_a_shim_that_is_about_to_become_its_command() {
    if !can_read() || !needs::program("strace", "strace") {
        return;
    }
    let canary = Canary::random();
    let (world, daemon) = world_with(&canary).await;
    let launch = world.launch_as(ROOT, &daemon).command(&["/usr/bin/sleep", "600"]);
    let hold = ["-e", "trace=execve", "-e", "inject=execve:delay_enter=5000000:when=1"];
    let (_trace, mut command) = Trace::of(&launch, &world.path().join("trace"), &hold);
    let shim = Program::start(&mut command, &world.path().join("log/shim.log"));
    wait::until("the shim to call execve", async || before_the_command(shim.pid()).then_some(())).await;

    let scan = in_memory(shim.pid(), &canary);
    assert!(scan.bytes > 0, "its own memory can be read");
    assert_eq!(scan.found, []);
    let outcomes = outcomes(ROOT, shim.pid(), &canary).await;
    assert_eq!(found_by(&outcomes), [""; 0], "{outcomes:?}");
    assert!(before_the_command(shim.pid()), "it was still the shim");
}

fn before_the_command(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    crate::support::name(pid) == "devbox-exec" && EXECVE.iter().any(|number| call.starts_with(number))
}

/// The daemon's secrets are not in a shell beside it, though it serves the same user.
#[tokio::test]
async fn a_process_that_was_not_launched_has_nothing() {
    if !can_read() {
        return;
    }
    let canary = Canary::random();
    let (world, _daemon, _launched) = launched_as_the_agent(&canary).await;
    let mut command = std::process::Command::new("/usr/bin/sleep");
    let bystander = started(&world, std::os::unix::process::CommandExt::uid(command.arg("600"), AGENT)).await;
    assert_eq!(found_by(&outcomes(ROOT, bystander.pid(), &canary).await), [""; 0]);
}
