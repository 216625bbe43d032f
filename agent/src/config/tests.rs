//! Whole configuration files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::identity::Source;
use crate::sys::Requirement;

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    File { _dir: dir, path }
}

fn load_text(text: &str) -> Result<Settings, Mistakes> {
    load(Some(&file(text).path), &Overrides::default())
}

/// Line and text of each mistake.
fn mistakes(text: &str) -> Vec<(Option<usize>, String)> {
    let mistakes = load_text(text).unwrap_err().mistakes;
    mistakes.into_iter().map(|mistake| (mistake.line, mistake.text)).collect()
}

const GOOD: &str = r#"
[server]
url = "https://secrets.example:8443"
max_stale = "30m"

[identity]
join_token_file = "/run/token"

[memory]
require = "memfd_secret"
limit = "1MiB"

[socket]
launch = "/run/x/launch.sock"

[log]
level = "debug"
format = "json"
audit = false

[[rule]]
name = "ci"
uid = 1000
env = ["DB_*", "API_KEY"]

[[credential]]
unit = "worker@.service"
env = ["DB_*", "TOKEN"]
"#;

#[test]
fn every_key_is_read() {
    let settings = load_text(GOOD).unwrap();
    assert_eq!(settings.server.url.to_string(), "https://secrets.example:8443");
    assert_eq!(settings.server.max_stale.as_secs(), 1_800);
    assert_eq!(settings.server.poll_wait.as_secs(), 30);
    assert_eq!(settings.identity, Source::JoinToken(Some("/run/token".into())));
    assert_eq!(settings.memory, Memory { require: Requirement::MemfdSecret, limit: 1 << 20 });
    assert_eq!(settings.sockets.admin, Path::new("/run/x/admin.sock"));
    assert_eq!(settings.policy.rules().len(), 1);
    assert!(!settings.log.audit);
    let table = settings.to_string();
    assert!(table.contains("1 (\"ci\")  uid 1000  DB_*, API_KEY"), "{table}");
    assert!(table.contains("worker@.service  DB_*, TOKEN"), "{table}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line_and_without_its_value() {
    let text = r#"[server]
url = "http://user:hunter2@secrets.example"
max_stale = "hunter2"
poll_wait = "1h"
retries = 3
[identity]
certificate = "hunter2"
[memory]
require = "hunter2"
limit = 5
[log]
level = "info,hunter2=hunter2"
format = "hunter2"
audit = "hunter2"
[[rule]]
env = ["A"]
[[rule]]
any = true
env = ["A"]
colour = "red"
[sever]
"#;
    let found = mistakes(text);
    let lines: Vec<Option<usize>> = found.iter().map(|(line, _)| *line).collect();
    let expected = [2, 3, 4, 5, 7, 9, 10, 12, 13, 14, 15, 20, 21].map(Some);
    assert_eq!(lines, expected, "{found:#?}");
    assert!(found.iter().all(|(_, text)| !text.contains("hunter2")), "{found:#?}");
}

#[test]
fn a_syntax_error_has_its_line_and_no_key_is_guessed_to_be_missing() {
    let found = mistakes("[server]\nurl = \"https://a\"\nmax_stale = \n");
    assert!(found.iter().any(|(line, text)| *line == Some(3) && text.starts_with("not TOML")), "{found:?}");
    assert!(found.iter().all(|(line, _)| line.is_some()), "{found:?}");
}

#[test]
fn a_missing_key_is_named_with_its_flag() {
    let found = mistakes("");
    assert_eq!(found.len(), 2);
    assert!(found[0].1.contains("--server"), "{found:?}");
    assert!(found[1].1.contains("--join-token-file"), "{found:?}");
}

#[test]
fn half_an_identity_and_two_are_mistakes() {
    let identity = |keys: &str| mistakes(&format!("[server]\nurl = \"https://a\"\n[identity]\n{keys}"));
    assert!(identity("certificate = \"/c\"\nkey = \"/k\"\n")[0].1.starts_with("half an identity"));
    let both = "certificate = \"/c\"\nkey = \"/k\"\nca = \"/a\"\njoin_token_file = \"/t\"\n";
    assert!(identity(both)[0].1.starts_with("two identities"));
}

#[test]
fn a_file_without_rules_grants_nothing_and_no_file_grants_the_own_user() {
    let flags = Overrides {
        server: Some("https://a".to_owned()),
        join_token_file: Some("-".into()),
        ..Overrides::default()
    };
    let from_file = load(Some(&file("").path), &flags).unwrap();
    assert!(from_file.policy.rules().is_empty());
    let without = load_from(None, &flags).unwrap();
    assert_eq!(without.policy.rules()[0].applies_to_text(), format!("uid {}", nix::unistd::geteuid()));
}

#[test]
fn the_command_line_wins() {
    let flags = Overrides {
        server: Some("https://other".to_owned()),
        certificate: Some("c".into()),
        key: Some("k".into()),
        ca: Some("a".into()),
        socket: Some("/tmp/one.sock".into()),
        log_level: Some("trace".to_owned()),
        ..Overrides::default()
    };
    let settings = load(Some(&file(GOOD).path), &flags).unwrap();
    assert_eq!(settings.server.url.host(), "other");
    assert!(matches!(settings.identity, Source::Files(_)));
    assert_eq!(settings.sockets.admin, Path::new("/tmp/one.sock.admin"));
    assert_eq!(settings.log.level, "trace");
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let file = file(GOOD);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = load(Some(&file.path), &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
}

#[test]
fn an_absent_file_is_named() {
    let error = load(Some(Path::new("/nowhere/agent.toml")), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/agent.toml: the file cannot be used"), "{error}");
}

#[test]
fn a_configuration_that_is_not_a_regular_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("agent.toml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [fifo.as_path(), dir.path()] {
        let error = load(Some(path), &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("it is not a regular file"), "{error}");
    }
}

#[test]
fn a_configuration_of_another_user_is_refused() {
    if !devbox_secrets_tests::needs::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(4_711), None).unwrap();
    let error = load(Some(&path), &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("uid 4711 owns it: chown it"), "{error}");
}
