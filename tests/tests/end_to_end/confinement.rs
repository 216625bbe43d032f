//! The daemon's rights once it serves, as the kernel reports them to others, and as `status` reports them.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::memory::status_field;
use devbox_secrets_tests::process::{self, Program};
use devbox_secrets_tests::world::World;
use devbox_secrets_tests::{programs, require_root, wait};
use serde_json::Value;

const STRANGER: u32 = 65_534;
/// Number of `CAP_IPC_LOCK` in capabilities(7).
const CAP_IPC_LOCK: u64 = 1 << 14;
/// Number of `CAP_SYS_PTRACE`.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// The report of `status`, in its form for programs.
const STEPS: [&str; 9] = [
    "no_core_dump",
    "not_dumpable",
    "memory_locked",
    "swap",
    "secret_pages",
    "capabilities",
    "no_new_privileges",
    "landlock",
    "seccomp",
];

/// A field of proc_pid_status(5), of every thread.
fn of_every_thread(pid: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    statuses.map(value).collect()
}

fn capabilities(pid: u32, set: &str) -> Vec<u64> {
    of_every_thread(pid, set).iter().map(|hex| u64::from_str_radix(hex, 16).unwrap()).collect()
}

#[tokio::test]
async fn no_thread_of_the_daemon_keeps_a_capability_but_to_lock_memory() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let pid = daemon.program.pid();
    assert!(of_every_thread(pid, "Name").len() > 1, "the thread that prepares launches is looked at as well");
    for set in ["CapInh", "CapAmb"] {
        assert!(capabilities(pid, set).iter().all(|left| *left == 0), "{set}");
    }
    for set in ["CapPrm", "CapEff"] {
        assert!(capabilities(pid, set).iter().all(|left| left & !CAP_IPC_LOCK == 0), "{set}");
    }
}

#[tokio::test]
async fn a_daemon_started_by_root_has_an_empty_bounding_set() {
    require_root!();
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    assert!(capabilities(daemon.program.pid(), "CapBnd").iter().all(|left| *left == 0));
}

#[tokio::test]
async fn where_a_rule_names_a_program_one_thread_may_look_at_others_and_nothing_else() {
    require_root!();
    let world = World::with_secret("API_KEY", "s3cret").await;
    let shim = world.for_others(&programs::shim());
    let rule = format!("[[rule]]\nuid = {STRANGER}\nexecutable = \"{}\"\nenv = [\"*\"]\n", shim.display());
    let daemon = world.setup(&world.devbox("box").await).config(&rule).start().await;
    let pid = daemon.program.pid();
    let may_look = |set| capabilities(pid, set).iter().filter(|left| **left & CAP_SYS_PTRACE != 0).count();
    assert_eq!([may_look("CapPrm"), may_look("CapEff")], [1, 1]);
    let others = !(CAP_IPC_LOCK | CAP_SYS_PTRACE);
    assert!(capabilities(pid, "CapPrm").iter().all(|left| left & others == 0));
    assert!(of_every_thread(pid, "Seccomp").iter().all(|mode| mode == "2"));
    let environment = world.launch_as(STRANGER, &daemon).environment().await;
    assert_eq!(environment["API_KEY"], b"s3cret", "the domain of the other threads is not in its way");
}

#[tokio::test]
async fn every_thread_of_the_daemon_is_under_the_system_call_filter_and_gains_no_privileges() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let pid = daemon.program.pid();
    assert!(of_every_thread(pid, "NoNewPrivs").iter().all(|value| value == "1"));
    assert!(of_every_thread(pid, "Seccomp").iter().all(|mode| mode == "2"), "2 is a filter");
}

#[tokio::test]
async fn a_daemon_of_another_user_is_confined_as_well() {
    require_root!();
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let program = world.for_others(&programs::daemon());
    let daemon = world.setup(&devbox).user(STRANGER, &program).start().await;
    let pid = daemon.program.pid();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(capabilities(pid, set).iter().all(|left| *left == 0), "{set}");
    }
    assert!(of_every_thread(pid, "NoNewPrivs").iter().all(|value| value == "1"));
    assert!(of_every_thread(pid, "Seccomp").iter().all(|mode| mode == "2"));
}

#[tokio::test]
async fn status_tells_of_every_protection_whether_it_is_there_and_why_not() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let hardening = daemon.status().await["hardening"].clone();
    for step in STEPS {
        let told = &hardening[step];
        assert_eq!(told["achieved"].as_bool().unwrap(), told["reason"].is_null(), "{step}: {told}");
    }
    for step in ["no_core_dump", "not_dumpable", "capabilities", "no_new_privileges", "seccomp"] {
        assert_eq!(hardening[step]["achieved"], true, "{step}: every kernel has it");
    }
    assert_eq!(hardening.as_object().unwrap().len(), STEPS.len());
    let printed = daemon.status_command(&[]).await.success();
    for line in ["no core dump", "not dumpable", "all locked", "swap", "secret pages", "landlock", "seccomp"]
    {
        assert!(printed.text().lines().any(|printed| printed.starts_with(line)), "{line}");
    }
}

#[tokio::test]
async fn a_daemon_that_says_that_its_memory_is_locked_has_all_of_it_locked() {
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let kib = |field| -> u64 {
        let value = status_field(daemon.program.pid(), field).unwrap();
        value.split_whitespace().next().unwrap().parse().unwrap()
    };
    if daemon.status().await["hardening"]["memory_locked"]["achieved"] == true {
        assert!(kib("VmLck") >= kib("VmRSS"), "{} of {} KiB", kib("VmLck"), kib("VmRSS"));
    } else {
        process::say("the limit of locked memory is too small here to lock everything");
    }
    assert_eq!(kib("VmSwap"), 0);
}

/// A daemon that may lock too little memory, as another user than root: what is missing then is the same everywhere.
fn with_little_memory(world: &World, setup: Setup) -> Program {
    let is_root = nix::unistd::geteuid().is_root();
    let program = world.for_others(&programs::daemon());
    let setup = if is_root { setup.user(STRANGER, &program) } else { setup };
    let command = setup.command();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -l 4096 && exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    limited.env("RUST_LOG", "info");
    if is_root {
        limited.uid(STRANGER).gid(STRANGER);
    }
    Program::start(&mut limited, &world.path().join("limited.log"))
}

#[tokio::test]
async fn strict_refuses_to_start_with_anything_missing_and_says_what_and_how_to_get_it() {
    let world = World::start().await;
    let setup = world.setup(&world.devbox("box").await).config("[hardening]\nmode = \"strict\"\n");
    let socket = setup.socket();
    let mut daemon = with_little_memory(&world, setup);
    assert_eq!(daemon.end().await.code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("hardening is strict"), "{log}");
    assert!(log.contains("all locked: ") && log.contains("LimitMEMLOCK="), "{log}");
    assert!(!socket.exists(), "no launch waits at a socket without a daemon");
}

#[tokio::test]
async fn strict_starts_where_nothing_is_missing() {
    let (world, daemon) = World::serving("API_KEY", "s3cret").await;
    let hardening = daemon.status().await["hardening"].clone();
    if STEPS.iter().any(|step| hardening[step]["achieved"] == false) {
        return process::say("strict_starts_where_nothing_is_missing: skipped: something is missing here");
    }
    let strict = "[hardening]\nmode = \"strict\"\n[[rule]]\nany = true\nenv = [\"*\"]\n";
    let strict = world.setup(&world.devbox("strict").await).config(strict).start().await;
    assert_eq!(strict.status().await["state"], "ready");
}

#[tokio::test]
async fn best_effort_warns_once_of_what_is_missing_and_serves() {
    let world = World::start().await;
    let setup = world.setup(&world.devbox("box").await);
    let (socket, admin_socket) = (setup.socket(), setup.admin_socket());
    let mut daemon = Daemon { program: with_little_memory(&world, setup), socket, admin_socket };
    daemon.ready().await;
    let warnings = |log: &str| -> Vec<Value> {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "hardening is incomplete").collect()
    };
    let warned = warnings(&daemon.program.log());
    assert_eq!(warned.iter().filter(|line| line["protection"] == "all locked").count(), 1, "{warned:?}");
    assert_eq!(daemon.status().await["hardening"]["memory_locked"]["achieved"], false);
}

#[tokio::test]
async fn the_kernel_ends_a_daemon_whose_thread_calls_what_is_not_on_the_list() {
    require_root!();
    if !devbox_secrets_tests::needs::program("gdb", "gdb") {
        return;
    }
    let (_world, mut daemon) = World::serving("API_KEY", "s3cret").await;
    let pid = daemon.program.pid().to_string();
    // gdb gives up with a core of its own when the process that it calls into is ended.
    let mut debugger = Command::new("prlimit");
    // fork(2), in the daemon's own name.
    debugger.args(["--core=0", "gdb", "--batch", "--nx", "-p", &pid, "-ex", "call (int)fork()"]);
    let told = process::run(debugger, b"").await;
    let ended = wait::until("the daemon to be ended", async || daemon.program.ended()).await;
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended);
    assert_eq!(signal, Some(nix::sys::signal::Signal::SIGSYS as i32), "{}", told.stderr);
}
