//! A confined process that does what the daemon never does is ended by the kernel, or refused. Seen from
//! outside, on a program that confines itself by the daemon's own code (`examples/confined.rs`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use nix::sys::signal::Signal;

use devbox_secrets_tests::process::full_pipe;

struct Place {
    dir: tempfile::TempDir,
    server: TcpListener,
}

impl Place {
    /// With a configuration, a socket in a folder of its own, a server, and a file that is nobody's business.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc", "run", "other"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let place = Self { dir, server: TcpListener::bind("127.0.0.1:0").unwrap() };
        fs::write(place.path("etc/agent.toml"), "").unwrap();
        fs::write(place.path("other/file"), "").unwrap();
        drop(UnixListener::bind(place.path("run/launch.sock")).unwrap());
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn server(&self) -> String {
        self.server.local_addr().unwrap().to_string()
    }

    fn confined(&self, host: &str, deed: &str, argument: &str) -> Output {
        self.command(host, deed, argument).output().unwrap()
    }

    fn command(&self, host: &str, deed: &str, argument: &str) -> Command {
        let port = self.server.local_addr().unwrap().port();
        let mut command = Command::new(program());
        command.arg(self.path("etc/agent.toml")).arg(self.path("run/launch.sock"));
        command.arg(format!("https://{host}:{port}")).args([deed, argument]);
        command
    }

    /// By a daemon whose server has an address.
    fn perform(&self, deed: &str, argument: &str) -> Output {
        self.confined("127.0.0.1", deed, argument)
    }

    #[track_caller]
    fn assert_done(&self, deed: &str, argument: &str) {
        let output = self.perform(deed, argument);
        assert!(output.status.success(), "{deed} {argument}: {output:?}");
    }

    #[track_caller]
    fn assert_refused(&self, deed: &str, argument: &str, error: &str) {
        let output = self.perform(deed, argument);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(error), "{deed} {argument}: {output:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Brought up to date at the first call: `cargo test --test confinement` alone does not build it.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["build", "--quiet", "-p", "devbox-secretsd", "--example", "confined"];
        assert!(Command::new(cargo).args(arguments).status().unwrap().success());
        // A test is target/<profile>/deps/<test>.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("examples/confined")
    });
    &PROGRAM
}

#[test]
fn confinement_allows_all_that_a_serving_daemon_does() {
    let place = Place::new();
    place.assert_done("read", text(&place.path("etc/agent.toml")));
    place.assert_done("connect", &place.server());
    place.assert_done("start a thread", "");
    place.assert_done("signal itself", "");
    let socket = place.path("run/launch.sock");
    place.assert_done("remove", text(&socket));
    assert!(!socket.exists());
}

/// Editors and configuration management put a new file in the old one's place.
#[test]
fn a_configuration_that_replaced_another_can_be_read() {
    let place = Place::new();
    let (old, new) = (place.path("etc/agent.toml"), place.path("etc/new.toml"));
    fs::write(&new, "").unwrap();
    fs::remove_file(&old).unwrap();
    place.assert_done("read", text(&new));
}

#[test]
fn calls_that_the_daemon_never_makes_end_it() {
    let place = Place::new();
    let new = place.path("run/new");
    let calls = [
        ("execute", "/bin/true"),
        ("start a process", "/bin/true"),
        ("write", text(&new)),
        ("listen", "127.0.0.1:0"),
        ("trace", ""),
        ("signal another", ""),
        ("read another's memory", ""),
        ("new namespace", ""),
        ("raw socket", ""),
        ("packet socket", ""),
        ("become another user", ""),
        ("raise a limit", ""),
        ("map writable code", ""),
    ];
    for (deed, argument) in calls {
        let output = place.perform(deed, argument);
        assert_eq!(output.status.signal(), Some(Signal::SIGSYS as i32), "{deed}: {output:?}");
    }
    assert!(!new.exists());
}

#[test]
fn optional_system_calls_of_libraries_are_refused() {
    let place = Place::new();
    place.assert_refused("map code", "", "Permission denied");
    place.assert_refused("netlink socket", "", "Address family not supported");
}

#[test]
fn files_that_the_daemon_does_not_need_are_out_of_its_reach() {
    let place = Place::new();
    let file = place.path("other/file");
    place.assert_refused("read", text(&file), "Permission denied");
    place.assert_refused("read", "/usr/bin/env", "Permission denied");
    place.assert_refused("remove", text(&file), "Permission denied");
    place.assert_refused("remove", text(&place.path("etc/agent.toml")), "Permission denied");
    assert!(file.exists());
}

#[test]
fn tcp_leads_to_the_servers_port_and_nowhere_else() {
    let place = Place::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    assert!(TcpStream::connect(address).is_ok(), "another process can");
    place.assert_refused("connect", &address.to_string(), "Permission denied");
}

#[test]
fn names_can_be_looked_up_where_the_server_has_one() {
    let place = Place::new();
    let output = place.confined("localhost", "look up", "localhost");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn users_of_changed_rules_are_found_and_unknown_ones_are_no_end() {
    let place = Place::new();
    place.assert_done("find a user", "root");
    place.assert_refused("find a user", "nobody-has-this-name-either", "NotFound");
}

#[test]
fn a_panic_is_logged_and_ends_the_process_though_its_log_is_not_read() {
    let place = Place::new();
    let output = place.perform("panic", "");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(101) && log.contains("as it was asked to"), "{output:?}");
    let (_unread, pipe) = full_pipe();
    let status = place.command("127.0.0.1", "panic", "").stderr(pipe).status().unwrap();
    assert_eq!(status.code(), Some(101));
}
