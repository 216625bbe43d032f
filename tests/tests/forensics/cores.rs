//! No core dump holds a value, whoever takes it and however the process ends.

use std::path::Path;

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::forensics::cores::{Cores, allow, can_dump, gcore};
use devbox_secrets_tests::forensics::trace::Trace;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::memory::{in_file, in_files};
use devbox_secrets_tests::needs;
use devbox_secrets_tests::process::{Program, say};
use devbox_secrets_tests::wait;
use nix::sys::signal::Signal;

use crate::support::{launched, world_with};

/// A minidump is larger than this.
const SMALLEST_CORE: u64 = 10_000;

fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.len())
}

#[tokio::test]
async fn a_debuggers_dump_of_server_and_daemon_holds_no_value_and_of_the_launched_process_does() {
    if !can_dump() {
        return;
    }
    let canary = Canary::random();
    let (world, daemon) = world_with(&canary).await;
    let program = launched(&world, &Launch::new(&daemon.socket)).await;
    let dump = |pid| gcore(pid, world.path());
    assert_ne!(in_file(&dump(program.pid()), &canary), [], "the search finds what is there");
    for pid in [daemon.program.pid(), world.server.program.pid()] {
        let core = dump(pid);
        assert!(size(&core) > Some(SMALLEST_CORE), "gdb dumped it: {}", core.display());
        assert_eq!(in_file(&core, &canary), []);
    }
}

/// The launched process is the one that may: its environment is its own.
#[tokio::test]
async fn crashes_with_cores_enabled_leave_none_of_server_and_daemon() {
    if !can_dump() {
        return;
    }
    let canary = Canary::random();
    let (mut world, mut daemon) = world_with(&canary).await;
    let mut program = launched(&world, &Launch::new(&daemon.socket)).await;
    let (folder, pids) = (world.path().join("cores"), (daemon.program.pid(), world.server.program.pid()));
    std::fs::create_dir(&folder).unwrap();
    let cores = Cores::into(&folder);

    assert!(allow(program.pid()), "a limit that is no hard one can be raised");
    crash(&mut program, Signal::SIGSEGV).await;
    let core = cores.of("sleep", program.pid());
    assert_ne!(in_file(&core, &canary), [], "the search finds what is there");
    std::fs::remove_file(core).unwrap();

    let raised = [allow(pids.0), allow(pids.1)];
    say(&format!("core limits of daemon and server could be raised from outside: {raised:?}"));
    crash(&mut daemon.program, Signal::SIGSEGV).await;
    crash(&mut world.server.program, Signal::SIGABRT).await;
    drop(cores);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "no core of either");
    assert_eq!(in_files(world.path(), &canary), []);
}

/// The handler that Rust's runtime has for SIGSEGV takes the first that it cannot explain, and goes: so, again and again.
async fn crash(program: &mut Program, signal: Signal) {
    wait::until("a crashed program to end", async || {
        if program.ended().is_none() {
            program.signal(signal);
        }
        program.ended()
    })
    .await;
}

/// A tracer sends the signal with the call that would have become the command; the command's file is none.
#[tokio::test]
async fn the_core_of_a_shim_that_crashes_with_the_secrets_mapped_holds_no_value() {
    if !can_dump() || !needs::program("strace", "strace") {
        return;
    }
    let canary = Canary::random();
    let (world, daemon) = world_with(&canary).await;
    let folder = world.path().join("cores");
    std::fs::create_dir(&folder).unwrap();
    let launch = Launch::new(&daemon.socket).command(&["/nowhere/to/be/found"]);
    let crash = ["-e", "trace=execve", "-e", "inject=execve:signal=SIGSEGV:when=1"];
    let (trace, mut command) = Trace::of(&launch, &world.path().join("trace"), &crash);
    let cores = Cores::into(&folder);
    let mut shim = Program::start(&mut command, &world.path().join("log/shim.log"));
    let status = shim.end().await;
    trace.complete(shim.pid()).await;
    assert!(status.to_string().contains("SIGSEGV"), "{status}");
    assert!(trace.text().contains("/nowhere/to/be/found"), "it had come to the command");

    let core = cores.of("devbox-exec", shim.pid());
    assert!(size(&core).is_some(), "{status}: it may dump core, and has");
    assert_eq!(in_files(&folder, &canary), []);
}
