//! The real program on platforms that lack a part of what it uses, each made with the kernel's own means: it becomes ready,
//! serves a launch, and its status names what is missing (docs/containers.md).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use devbox_launch_proto::ErrorCode;
use devbox_secretsd::status::{State, Status};
use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use devbox_secrets_tests::authority::Validity;
use devbox_secrets_tests::needs;
use support::PATIENCE;
use support::control_plane::{ControlPlane, bundle};
use support::daemon::{Daemon, PROGRAM};
use support::launch::launch;

const SERVED: &str = "API_KEY=canary-value-4711\0";
const SOCKET: &str = "DEVBOX_SECRETS_TEST_SOCKET";
/// An ordinary user.
const USER: u32 = 4_711;

/// A daemon on a platform, and its control plane.
struct Platform {
    daemon: Daemon,
    _plane: Arc<ControlPlane>,
}

impl Platform {
    async fn start(command: Command, dir: TempDir, more: &[&str]) -> Self {
        let plane = ControlPlane::start(bundle(1, &[("API_KEY", "canary-value-4711")])).await;
        Self { daemon: Daemon::on(command, dir, &plane, &plane.url(), more), _plane: plane }
    }

    async fn assert_serves(&self) {
        assert_eq!(launch(&self.daemon.launch_socket()).await.unwrap(), SERVED);
    }
}

/// A folder for the sockets, of `user` if there is one.
fn folder(user: Option<u32>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), user, user).unwrap();
    dir
}

/// An ordinary user to run as; none if this process has no right to choose, and is one itself.
fn ordinary_user() -> Option<u32> {
    geteuid().is_root().then_some(USER)
}

fn run_as(command: &mut Command, user: Option<u32>) {
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
}

/// `unshare` with `namespaces`, as `user`; none, and the test is skipped, if this machine refuses them.
fn namespaces(namespaces: &[&str], user: Option<u32>) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).args(namespaces);
        run_as(&mut command, user);
        command
    };
    let is_possible = unshare().arg("true").status().is_ok_and(|status| status.success());
    if !is_possible {
        needs::skipped("unprivileged user namespaces, and unshare(1)");
    }
    is_possible.then(unshare)
}

/// A program that takes system calls away. Brought up to date at the first call: `cargo test --test platforms` alone does not
/// build it.
fn without(calls: &[i64]) -> Command {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["build", "--quiet", "-p", "devbox-secretsd", "--example", "without"];
        assert!(Command::new(cargo).args(arguments).status().unwrap().success());
        // A test is target/<profile>/deps/<test>.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("examples/without")
    });
    let mut command = Command::new(&*PROGRAM);
    command.arg(calls.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    command
}

/// The output of `status --json` for `user` once the daemon is ready.
async fn status_as(socket: &Path, user: Option<u32>) -> Status {
    let ready = async {
        loop {
            let mut command = Command::new(PROGRAM);
            command.args(["status", "--json", "--admin-socket"]).arg(socket);
            run_as(&mut command, user);
            let output = command.output().unwrap();
            match serde_json::from_slice::<Status>(&output.stdout) {
                Ok(status) if status.state == State::Ready => return status,
                _ => sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, ready).await.expect("the daemon never becomes ready")
}

#[tokio::test]
#[ignore = "a part of the next test, which runs it as another user"]
async fn an_ordinary_user_is_served() {
    let socket = std::env::var_os(SOCKET).unwrap();
    assert_eq!(launch(Path::new(&socket)).await.unwrap(), SERVED);
}

#[tokio::test]
async fn an_unprivileged_user_namespace_serves_its_own_user_and_refuses_a_user_that_it_does_not_map() {
    let user = ordinary_user();
    let Some(command) = namespaces(&[], user) else { return };
    let platform = Platform::start(command, folder(user), &[]).await;
    let status = status_as(&platform.daemon.admin_socket(), user).await;
    // Capabilities over a namespace are none over the machine's memory.
    let locked = status.hardening.memory_locked;
    let names_the_limit = locked.reason.as_ref().is_some_and(|why| why.contains("limit of locked memory"));
    assert!(locked.achieved || names_the_limit, "{locked:?}");
    let socket = platform.daemon.launch_socket();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "an_ordinary_user_is_served"]).env(SOCKET, &socket);
    run_as(&mut command, user);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}\n{}", platform.daemon.log());
    if needs::root() {
        // The machine's root, whom this namespace shows by the uid of all unmapped users. A folder is no obstacle to it.
        assert_eq!(launch(&socket).await, Err(ErrorCode::Denied));
        platform.daemon.until_logged("does not map this process's user").await;
    }
}

#[tokio::test]
async fn with_64_kib_of_locked_memory_a_launch_is_served_and_the_limit_is_named() {
    let user = ordinary_user();
    let dir = folder(user);
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, "[[rule]]\nany = true\nenv = [\"*\"]\n").unwrap();
    chown(&config, user, user).unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--memlock=65536:65536");
    run_as(&mut command, user);
    let platform = Platform::start(command, dir, &["--config", config.to_str().unwrap()]).await;
    let status = status_as(&platform.daemon.admin_socket(), None).await;
    let locked = status.hardening.memory_locked;
    assert!(!locked.achieved);
    assert!(locked.reason.as_ref().is_some_and(|why| why.contains("is 64 KiB: LimitMEMLOCK")), "{locked:?}");
    platform.assert_serves().await;
}

/// In a mount namespace: no machine-id(5), and a root that cannot be written; the sockets' folder can.
const READ_ONLY: &str = "set -e
mount --bind \"$0\" \"$0\"
touch \"$0/empty\"
if [ -e /etc/machine-id ]; then mount --bind \"$0/empty\" /etc/machine-id; fi
mount -o remount,bind,ro /
if touch /etc/writable 2>/dev/null; then rm /etc/writable; echo 'the root is not read-only' >&2; exit 9; fi
exec \"$@\"";

#[tokio::test]
async fn on_a_read_only_root_without_a_machine_id_a_launch_is_served_and_the_id_is_missing() {
    let Some(mut command) = namespaces(&["--mount"], None) else { return };
    let dir = folder(None);
    command.args(["sh", "-c", READ_ONLY]).arg(dir.path());
    let platform = Platform::start(command, dir, &[]).await;
    let status = status_as(&platform.daemon.admin_socket(), None).await;
    assert!(!status.clone_detection.machine_id);
    platform.assert_serves().await;
}

#[tokio::test]
async fn without_memfd_secret_and_the_keyring_a_launch_is_served_and_both_are_named() {
    let dir = folder(None);
    // The keyring is for restarts, which take a service manager.
    let manager = dir.path().join("notify.sock");
    let _manager = UnixDatagram::bind(&manager).unwrap();
    let mut command = without(&[libc::SYS_memfd_secret, libc::SYS_keyctl, libc::SYS_add_key]);
    command.env("NOTIFY_SOCKET", &manager).arg("env");
    let platform = Platform::start(command, dir, &[]).await;
    let status = status_as(&platform.daemon.admin_socket(), None).await;
    assert_eq!(status.memory.backing, "mlock");
    assert!(status.memory.fallback_reason.is_some_and(|why| why.contains("memfd_secret")));
    assert!(!status.hardening.secret_pages.achieved);
    assert!(!status.restart.identity && status.restart.secrets_revision.is_none());
    platform.daemon.until_logged("the kernel keyring of this user is unavailable").await;
    platform.assert_serves().await;
}

/// A field of `/proc/PID/status`, in KiB.
fn kib(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim_start_matches(':').split_ascii_whitespace().next().unwrap().parse().unwrap()
}

/// With every kind of thread at work: one looks up the server's name, one looks at programs, one prepares launches.
#[tokio::test]
async fn a_daemon_whose_memory_is_locked_locks_less_than_32_mib() {
    let plane =
        ControlPlane::start_as("localhost", Validity::NORMAL, bundle(1, &[("API_KEY", "canary")])).await;
    let dir = folder(None);
    let config = dir.path().join("agent.toml");
    let program = std::env::current_exe().unwrap();
    std::fs::write(&config, format!("[[rule]]\nany = true\nexecutable = {program:?}\nenv = [\"*\"]\n"))
        .unwrap();
    let url = format!("https://localhost:{}", plane.address.port()).parse().unwrap();
    let mut command = Command::new("env");
    command.args(["-u", "MALLOC_ARENA_MAX"]);
    let daemon = Daemon::on(command, dir, &plane, &url, &["--config", config.to_str().unwrap()]);
    let status = daemon.until_ready().await;
    launch(&daemon.launch_socket()).await.unwrap();
    if !status.hardening.memory_locked.achieved {
        return needs::skipped("64 MiB of RLIMIT_MEMLOCK or CAP_IPC_LOCK, so that all memory is locked");
    }
    let locked = kib(&daemon, "VmLck");
    assert!((1..32 * 1024).contains(&locked), "{locked} KiB");
}
