//! Which permissions of the master key's file the program accepts, as systemd, Kubernetes and
//! people set them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use devbox_secrets_tests::require_root;
use tempfile::TempDir;

/// A user and a group that no machine has.
const USER: u32 = 61_234;
const GROUP: u32 = 61_235;

/// A directory of credentials with the key in it, and a configuration that names no other key.
struct Machine {
    directory: TempDir,
    key: PathBuf,
}

impl Machine {
    fn new(mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let credentials = directory.path().join("credentials");
        let key = credentials.join("master-key");
        fs::create_dir(&credentials).unwrap();
        fs::write(&key, [7; 32]).unwrap();
        let machine = Self { directory, key };
        machine.configure("");
        machine.set_mode(mode);
        machine
    }

    fn configure(&self, key: &str) {
        let text = format!(
            "[state]\ndirectory = \"/nonexistent/state\"\n{key}[api]\nlisten = \"127.0.0.1:0\"\n[devbox]\nlisten = \"127.0.0.1:0\"\n"
        );
        fs::write(self.configuration(), text).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("server.toml")
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.key, Permissions::from_mode(mode)).unwrap();
    }

    fn check(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("check").arg("--config").arg(self.configuration()).env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    fn check_as_unit(&self) -> Output {
        let credentials = self.key.parent().unwrap();
        self.check(program()).env("CREDENTIALS_DIRECTORY", credentials).output().unwrap()
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_devbox-secrets-server"))
}

fn assert_refused(output: &Output, mode: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("mode {mode}")) && text.contains("chmod 600"), "{text}");
}

fn assert_accepted(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_credential_that_its_acl_shows_as_readable_by_the_group_is_accepted() {
    let machine = Machine::new(0o440);
    assert_accepted(&machine.check_as_unit());
}

#[test]
fn a_credential_that_others_may_read_or_its_group_may_write_is_refused() {
    let machine = Machine::new(0o444);
    for (mode, text) in [(0o444, "0444"), (0o460, "0460"), (0o450, "0450"), (0o441, "0441")] {
        machine.set_mode(mode);
        assert_refused(&machine.check_as_unit(), text);
    }
}

#[test]
fn a_key_of_this_user_that_its_group_may_read_is_refused_outside_of_the_credentials() {
    let machine = Machine::new(0o640);
    let other = machine.directory.path().join("other.key");
    fs::write(&other, [7; 32]).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o640)).unwrap();
    machine.configure(&format!("master_key_file = {other:?}\n"));
    assert_refused(&machine.check_as_unit(), "0640");
    // A directory beneath the credentials is not the credentials' directory.
    let nested = machine.key.parent().unwrap().join("nested");
    fs::create_dir(&nested).unwrap();
    fs::rename(&other, nested.join("other.key")).unwrap();
    machine.configure(&format!("master_key_file = {:?}\n", nested.join("other.key")));
    assert_refused(&machine.check_as_unit(), "0640");
}

/// A Kubernetes secret volume with `fsGroup` has files of root's, 0440, of a group that the
/// container's user is in.
#[test]
fn a_key_of_roots_that_reaches_this_user_by_its_group_is_accepted() {
    require_root!();
    let machine = Machine::new(0o440);
    machine.configure(&format!("master_key_file = {:?}\n", machine.key));
    chown(&machine.key, Some(0), Some(GROUP)).unwrap();
    let copy = machine.directory.path().join("server");
    fs::copy(program(), &copy).unwrap();
    for path in [machine.directory.path(), machine.key.parent().unwrap()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let as_user = || machine.check(&copy).uid(USER).gid(GROUP).output().unwrap();
    assert_accepted(&as_user());
    for (mode, text) in [(0o444, "0444"), (0o460, "0460")] {
        machine.set_mode(mode);
        assert_refused(&as_user(), text);
    }
    chown(&machine.key, Some(USER), Some(GROUP)).unwrap();
    machine.set_mode(0o440);
    assert_refused(&as_user(), "0440");
}
