//! Others who want at the daemon's memory: processes of its own user, and root, as far as root can be kept out.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::memory::in_file;
use devbox_secrets_tests::process::{self, Output};
use devbox_secrets_tests::world::World;
use devbox_secrets_tests::{needs, programs, require_root};

const STRANGER: u32 = 65_534;

/// Tries one of its deeds on a process, as `user`.
async fn intrude(world: &World, user: u32, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/intruder.py");
    let mut command = Command::new("python3");
    command.arg(world.for_others(&script)).args(arguments).uid(user).gid(user);
    process::run(command, b"").await.success()
}

/// A daemon of a user that is not root, and a launch that it has served.
async fn of_a_stranger(world: &World, canary: &Canary) -> Daemon {
    world.api().create("CANARY", canary.value()).await;
    let devbox = world.devbox("box").await;
    let program = world.for_others(&programs::daemon());
    let daemon = world.setup(&devbox).user(STRANGER, &program).start().await;
    world.launch_as(STRANGER, &daemon).run(&["true"]).await.success();
    daemon
}

fn has_python() -> bool {
    needs::program("python3", "python3")
}

#[tokio::test]
async fn the_daemons_own_user_can_neither_trace_nor_read_it_nor_take_its_descriptors() {
    require_root!();
    if !has_python() {
        return;
    }
    let world = World::start().await;
    let daemon = of_a_stranger(&world, &Canary::random()).await;
    let pid = daemon.program.pid().to_string();
    for deed in ["trace", "read", "descriptor"] {
        let told = intrude(&world, STRANGER, &[deed, &pid]).await;
        assert_eq!(told.text().trim(), "EPERM", "{deed}");
    }
    let own = std::process::id().to_string();
    assert_eq!(intrude(&world, 0, &["descriptor", &own]).await.text().trim(), "OK", "the script can do it");
}

#[tokio::test]
async fn root_finds_no_value_in_any_descriptor_of_the_daemon() {
    require_root!();
    if !has_python() {
        return;
    }
    let (world, canary) = (World::start().await, Canary::random());
    let daemon = of_a_stranger(&world, &canary).await;
    let pattern = canary.value().split('"').next().unwrap();
    let told = intrude(&world, 0, &["descriptors", &daemon.program.pid().to_string(), pattern]).await;
    let counts: Vec<u32> = told.text().split_whitespace().map(|count| count.parse().unwrap()).collect();
    let [taken, secret, holding] = counts[..] else { panic!("{}", told.text()) };
    assert!(taken > 5, "{taken} descriptors were taken");
    let backing = daemon.status().await["memory"]["backing"].clone();
    assert!(secret > 0 || backing != "memfd_secret", "prepared launches are among them");
    assert_eq!(holding, 0, "a launch's descriptor is closed as soon as it is passed on");
}

/// Writes a core dump of a running process, by gcore(1).
async fn dump(pid: u32, user: u32, to: &Path) -> (Output, PathBuf) {
    let mut command = Command::new("gcore");
    command.arg("-o").arg(to).arg(pid.to_string()).uid(user).gid(user);
    let output = process::run(command, b"").await;
    (output, PathBuf::from(format!("{}.{pid}", to.display())))
}

#[tokio::test]
async fn a_core_dump_that_root_takes_has_no_value_and_nobody_else_gets_one() {
    require_root!();
    if !needs::program("gdb", "gdb") {
        return;
    }
    let (world, canary) = (World::start().await, Canary::random());
    let daemon = of_a_stranger(&world, &canary).await;
    if daemon.status().await["memory"]["backing"] != "memfd_secret" {
        return process::say("without memfd_secret root can read everything");
    }
    let pid = daemon.program.pid();
    let own = world.path().join("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(STRANGER), Some(STRANGER)).unwrap();
    let (_, core) = dump(pid, STRANGER, &own.join("core")).await;
    assert!(!core.exists(), "the daemon's own user gets no dump");
    let (output, core) = dump(pid, 0, &world.path().join("core")).await;
    assert!(core.metadata().is_ok_and(|core| core.len() > 100_000), "{}", output.stderr);
    assert_eq!(in_file(&core, &canary), [], "the dump has no value");
}
