//! The real program, hardened: which processes its rules are about, and what it says of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, RequestBuilder};
use devbox_secretsd::access::explain::Explanation;
use devbox_secretsd::access::peer::Digest;
use nix::unistd::geteuid;
use tempfile::TempDir;

use devbox_secrets_tests::needs;
use support::config_file;
use support::control_plane::{ControlPlane, bundle};
use support::daemon::{Daemon, PROGRAM};

const CANARY: &str = "canary-value-4711";
/// Where [`launches_as_another_user`] asks.
const SOCKET: &str = "DEVBOX_TEST_SOCKET";
const NOBODY: u32 = 65_534;

struct Served {
    daemon: Daemon,
    config: PathBuf,
    _dir: TempDir,
    _plane: Arc<ControlPlane>,
}

impl Served {
    async fn start(rules: &str) -> Self {
        let (dir, config) = config_file(rules);
        let plane = ControlPlane::start(bundle(1, &[("API_KEY", CANARY), ("LD_PRELOAD", "/evil.so")])).await;
        let daemon = Daemon::start(&plane, &["--config", config.to_str().unwrap()]);
        daemon.until_ready().await;
        Self { daemon, config, _dir: dir, _plane: plane }
    }

    fn explain(&self, pid: u32, more: &[&str]) -> Output {
        let mut command = explain(pid, &self.daemon.admin_socket());
        command.args(more).output().unwrap()
    }
}

fn explain(pid: u32, socket: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["explain", "--pid", &pid.to_string()]).arg("--admin-socket").arg(socket);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The names that a launch of this process gets, or what it is told instead.
fn names(socket: &Path) -> Result<String, (ErrorCode, String)> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut buffer = [0; 64];
    let flags = Flags { list: true, ..Flags::default() };
    stream.write_all(RequestBuilder::new(&mut buffer, flags, 0).unwrap().finish()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let (header, body) = answer.split_first_chunk::<HEADER_LEN>().unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    match AnswerHeader::decode(header).unwrap().answer {
        Answer::Error(code) => Err((code, body)),
        _ => Ok(body),
    }
}

/// The rule of this test's own program.
fn own_program(digest: &str) -> String {
    let path = fs::read_link("/proc/self/exe").unwrap();
    format!(
        "[[rule]]\nany = true\nexecutable = {:?}\nsha256 = \"{digest}\"\nenv = [\"API_*\"]\n",
        path.to_str().unwrap()
    )
}

fn own_digest() -> String {
    Digest::of(&mut fs::File::open("/proc/self/exe").unwrap()).unwrap().to_string()
}

#[tokio::test]
async fn a_confined_daemon_still_sees_the_program_that_a_rule_names() {
    let served = Served::start(&own_program(&own_digest())).await;
    assert_eq!(names(&served.daemon.launch_socket()).unwrap(), "API_KEY\0");
}

#[tokio::test]
async fn a_program_of_other_contents_is_refused_and_the_audit_log_says_why() {
    let served = Served::start(&own_program(&"0".repeat(64))).await;
    let (code, told) = names(&served.daemon.launch_socket()).unwrap_err();
    assert_eq!(code, ErrorCode::Denied);
    assert!(told.contains("add a [[rule]]") && !told.contains("sha256"), "{told}");
    served.daemon.until_logged("sha256 is").await;
    served.daemon.until_logged("\"target\":\"audit\"").await;
}

#[test]
#[ignore = "a part of the next test, which runs it as another user"]
fn launches_as_another_user() {
    let socket = std::env::var_os(SOCKET).unwrap();
    assert_eq!(names(Path::new(&socket)).unwrap(), "API_KEY\0");
}

#[tokio::test]
async fn another_users_program_is_seen_too() {
    if !needs::root() {
        return;
    }
    let served = Served::start(&own_program(&own_digest())).await;
    let socket = served.daemon.launch_socket();
    fs::set_permissions(socket.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "launches_as_another_user"]).env(SOCKET, &socket);
    match command.uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => assert!(output.status.success(), "{}", text(&output)),
        Err(error) => needs::skipped(&format!("that another user can run this program: {error}")),
    }
}

#[tokio::test]
async fn explain_tells_the_rule_of_each_variable_and_no_value() {
    let uid = geteuid();
    let rules = format!(
        "[[rule]]\nname = \"mine\"\nuid = {uid}\nenv = [\"*\"]\n[[rule]]\nunit = \"none.service\"\nenv = [\"*\"]\n"
    );
    let served = Served::start(&rules).await;
    let output = served.explain(std::process::id(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    for part in ["the running daemon", "yes, by rule 1 (\"mine\")", "none.service", "no: it steers what"] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    assert!(!text(&output).contains(CANARY));

    let output = served.explain(std::process::id(), &["--json"]);
    let explanation: Explanation = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explanation.process.uid, uid.as_raw());
    assert_eq!(explanation.rules[1].mismatches.len(), 1);
    let rules: Vec<_> = explanation.variables.unwrap().into_iter().map(|variable| variable.rule).collect();
    assert_eq!(rules, [Some("1 (\"mine\")".to_owned()), None]);
}

#[tokio::test]
async fn explain_is_about_the_rules_in_force_and_without_a_daemon_about_the_file() {
    let served = Served::start("").await;
    fs::write(&served.config, "[[rule]]\nname = \"new\"\nany = true\nenv = [\"*\"]\n").unwrap();
    let config = ["--config", served.config.to_str().unwrap()];
    let running = text(&served.explain(std::process::id(), &config));
    assert!(running.contains("no rules: nobody may have anything"), "{running}");
    let stopped =
        explain(std::process::id(), Path::new("/nowhere/admin.sock")).args(config).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped));
    for part in ["agent.toml; no daemon runs at /nowhere", "1 (\"new\")", "only a running daemon knows"] {
        assert!(text(&stopped).contains(part), "{part}: {}", text(&stopped));
    }
}

#[test]
fn explain_says_what_is_wrong_with_the_process_or_the_file() {
    let socket = Path::new("/nowhere/admin.sock");
    let absent = explain(4_194_304, socket).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent).contains("there is no process 4194304"), "{}", text(&absent));
    let (_dir, config) = config_file("[[rule]]\ncolour = 1\n");
    let mistaken = explain(std::process::id(), socket).arg("--config").arg(config).output().unwrap();
    assert_eq!(mistaken.status.code(), Some(2));
    assert!(text(&mistaken).contains("agent.toml:2"), "{}", text(&mistaken));
}

/// Runs `check` with `rules` in a user namespace that maps its own user to root and no other, as root and as another user.
#[test]
fn the_uid_of_all_unmapped_users_is_no_user_in_a_user_namespace() {
    for user in [None, needs::root().then_some(4_711)] {
        for (key, kind) in [("uid", "user"), ("gid", "group")] {
            let (dir, config) = config_file(&format!("[[rule]]\n{key} = {NOBODY}\nenv = [\"*\"]\n"));
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", PROGRAM, "check", "--server", "https://127.0.0.1"]);
            command.arg("--join-token-file").arg("/dev/null").arg("--config").arg(&config);
            if let Some(id) = user {
                for path in [dir.path(), &config] {
                    std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
                }
                command.uid(id).gid(id);
            }
            let told = text(&command.output().unwrap());
            let expected =
                format!("names the {kind} {NOBODY}, by which this user namespace shows every {kind}");
            assert!(told.contains(&expected), "{user:?}: {told}");
        }
    }
}

#[test]
fn too_few_descriptors_are_refused_at_the_start_with_the_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("prlimit");
    command.args([
        "--nofile=64",
        PROGRAM,
        "run",
        "--server",
        "https://127.0.0.1:1",
        "--join-token-file",
        "-",
    ]);
    let output = command.arg("--socket").arg(dir.path().join("launch.sock")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    assert!(told.contains("file descriptors is 64") && told.contains("LimitNOFILE=256"), "{told}");
}
