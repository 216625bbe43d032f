//! The operators' commands, as people and scripts run them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A state that `dev` would make, without a server.
struct State(TempDir);

impl State {
    fn new() -> Self {
        let state = Self(tempfile::tempdir().unwrap());
        state.text("init");
        state
    }

    /// With the account `acme`.
    fn with_account() -> Self {
        let state = Self::new();
        state.text("account create acme");
        state
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, line: &str, input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_devbox-secrets-server"))
            .args(line.split_whitespace())
            .arg("--state")
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses may end before it reads.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn json(&self, line: &str, input: &[u8]) -> Value {
        let output = self.run(&format!("{line} --json"), input);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn text(&self, line: &str) -> String {
        let output = self.run(line, b"");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn error(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn an_account_gets_tokens_that_are_shown_once() {
    let state = State::new();
    let account = state.json("account create acme", b"");
    assert_eq!(account["devbox_capability"], true);
    let scoped = "token create --account acme --name scoped --scope secrets:read --scope audit";
    assert_eq!(state.json(scoped, b"")["scopes"], serde_json::json!(["secrets:read", "audit"]));
    let token = state.json("token create --account acme --name ci --expires 30d", b"");
    let all_but_admin = serde_json::json!(["secrets:read", "secrets:write", "devboxes", "audit"]);
    assert_eq!(token["scopes"], all_but_admin);
    assert!(token["token"].as_str().unwrap().starts_with("dbs_"));
    assert!(token["expire_time_ms"].as_i64() > token["create_time_ms"].as_i64());
    let listed = state.text("token list --account acme");
    assert!(listed.contains("ci") && !listed.contains("dbs_"), "{listed}");
    let id = token["id"].as_str().unwrap();
    let revoked = state.json(&format!("token revoke --account acme {id}"), b"");
    assert!(revoked["revoke_time_ms"].is_i64());
}

#[test]
fn the_devbox_capability_is_granted_and_withdrawn() {
    let state = State::new();
    let account = state.json("account create acme --no-devbox-capability", b"");
    assert_eq!(account["devbox_capability"], false);
    assert_eq!(state.json("account set-capability acme on", b"")["devbox_capability"], true);
    assert_eq!(state.json("account set-capability acme off", b"")["devbox_capability"], false);
    assert!(state.error("account create acme", b"").contains("acme"));
}

#[test]
fn a_value_comes_from_standard_input_and_is_never_shown() {
    let state = State::with_account();
    let created = state.json("secret set --account acme KEY", b"hunter2\n");
    let updated = state.json("secret set --account acme KEY --trim-newline", b"hunter3\n");
    assert_eq!(created["id"], updated["id"]);
    let shown = state.text("secret list --account acme") + &state.text("audit");
    assert!(shown.contains("KEY") && !shown.contains("hunter"), "{shown}");
    let deleted = state.json("secret delete --account acme KEY", b"");
    assert_eq!(deleted["id"], created["id"]);
    assert!(state.error("secret delete --account acme KEY", b"").contains("secret"));
}

#[test]
fn no_command_line_takes_a_value() {
    let state = State::with_account();
    for line in ["secret set --account acme KEY hunter2", "secret set --account acme KEY --value hunter2"] {
        assert_eq!(state.run(line, b"").status.code(), Some(2), "{line}");
    }
}

#[test]
fn refused_values_are_not_repeated() {
    let state = State::with_account();
    let too_long = b"hunter2".repeat(20_000);
    for input in [&b"hunter2\0"[..], &too_long] {
        let error = state.error("secret set --account acme KEY", input);
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_devbox_is_registered_with_a_join_token_and_shut_down() {
    let state = State::with_account();
    let secret = state.json("secret set --account acme DATABASE_PASSWORD", b"v");
    let devbox = state.json("devbox register --account acme box --secret DB_PASS=DATABASE_PASSWORD", b"");
    assert_eq!(devbox["secrets"]["DB_PASS"], secret["id"]);
    let id = devbox["id"].as_str().unwrap();
    assert!(devbox["join_token"].as_str().unwrap().starts_with(id));
    assert!(!state.text("devbox list --account acme").contains(devbox["join_token"].as_str().unwrap()));
    let ended = state.json(&format!("devbox shutdown --account acme {id}"), b"");
    assert_eq!(ended["status"], "shutdown");
    let unknown = state.error("devbox register --account acme box --secret DB_PASS=NOPE", b"");
    assert!(unknown.contains("DB_PASS") && !unknown.contains("NOPE"), "{unknown}");
}

#[test]
fn the_audit_lists_actor_action_and_object() {
    let state = State::with_account();
    state.json("account create other", b"");
    state.json("secret set --account acme KEY", b"v");
    let audit = state.json("audit --account acme --limit 1", b"");
    let newest = &audit.as_array().unwrap()[0];
    assert_eq!(newest["action"], "secret.create");
    assert_eq!(newest["actor_kind"], "operator");
    assert_eq!(newest["object_name"], "KEY");
    assert_eq!(state.json("audit", b"").as_array().unwrap().len(), 3);
}

#[test]
fn the_audit_has_the_documented_schema_and_no_other_words() {
    let document = include_str!("../../docs/audit.md");
    let state = State::with_account();
    state.json("secret set --account acme KEY", b"v");
    let rows = state.json("audit", b"");
    for row in rows.as_array().unwrap() {
        let fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let documented = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let mut documented: Vec<&str> = documented.map(|(field, _)| field).take(fields.len()).collect();
        documented.sort_unstable();
        assert_eq!(fields, documented);
        for word in ["action", "outcome", "actor_kind"] {
            assert!(document.contains(&format!("`{}`", row[word].as_str().unwrap())), "{row}");
        }
    }
}

#[test]
fn an_empty_value_replaces_nothing_unless_it_is_meant() {
    let state = State::with_account();
    state.json("secret set --account acme KEY", b"value");
    for (line, input) in
        [("secret set --account acme KEY", &b""[..]), ("secret set --account acme KEY --trim-newline", b"\n")]
    {
        let error = state.error(line, input);
        assert!(error.contains("--allow-empty"), "{error}");
    }
    let version = |value: &Value| value["update_time_ms"].as_i64();
    let before = state.json("secret list --account acme", b"")["secrets"][0].clone();
    let set = state.json("secret set --account acme KEY --allow-empty", b"");
    assert!(version(&set) > version(&before));
}

/// A terminal with the program in its foreground, asking for a value.
struct Prompt {
    terminal: OpenptyResult,
    program: Child,
}

impl Prompt {
    fn start(state: &State) -> Self {
        let terminal = openpty(None, None).unwrap();
        let end = || Stdio::from(terminal.slave.try_clone().unwrap());
        // It makes the terminal the controlling one, so that Ctrl-C is a signal.
        let program = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_devbox-secrets-server")])
            .args(["secret", "set", "--account", "acme", "TYPED", "--state"])
            .arg(state.path())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let prompt = Self { terminal, program };
        prompt.wait_for_echo(false);
        prompt
    }

    fn has_echo(&self) -> bool {
        tcgetattr(&self.terminal.slave).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    fn wait_for_echo(&self, wanted: bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.has_echo() != wanted {
            assert!(Instant::now() < deadline, "the echo is still {}", !wanted);
            std::thread::yield_now();
        }
    }

    fn type_in(&self, bytes: &[u8]) {
        File::from(self.terminal.master.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// The exit code, and all that the terminal showed.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.program.wait().unwrap().code();
        assert!(self.has_echo(), "the terminal is as it was");
        let mut shown = vec![0; 4096];
        let len = File::from(self.terminal.master).read(&mut shown).unwrap();
        (code, String::from_utf8_lossy(&shown[..len]).into_owned())
    }
}

#[test]
fn a_typed_value_is_stored_and_never_shown() {
    let state = State::with_account();
    let prompt = Prompt::start(&state);
    prompt.type_in(b"canary-9ab2\n");
    let (code, shown) = prompt.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Value: ") && shown.contains("TYPED") && !shown.contains("canary"), "{shown}");
}

#[test]
fn a_prompt_that_is_interrupted_leaves_the_terminal_as_it_was_and_changes_nothing() {
    let state = State::with_account();
    for key in [b"\x03", b"\x1c", b"\x1a"] {
        let prompt = Prompt::start(&state);
        prompt.type_in(b"half of a val");
        prompt.type_in(key);
        let (code, shown) = prompt.end();
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("interrupted"), "{shown}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let prompt = Prompt::start(&state);
        kill(Pid::from_raw(i32::try_from(prompt.program.id()).unwrap()), signal).unwrap();
        assert_eq!(prompt.end().0, Some(1), "{signal}");
    }
    assert_eq!(state.json("secret list --account acme", b"")["total_count"], 0);
}

#[test]
fn the_audit_is_exported_by_the_row_and_pruned_after_its_export() {
    let state = State::with_account();
    for number in 0..20 {
        state.json(&format!("secret set --account acme KEY{number}"), b"value");
    }
    let lines =
        |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let all = lines(&state.text("audit export"));
    assert_eq!(all.len(), 21);
    assert!(all.windows(2).all(|rows| rows[0]["sequence"].as_i64() < rows[1]["sequence"].as_i64()));
    assert_eq!(all[0]["hash"].as_str().unwrap().len(), 64);
    let rest = lines(&state.text("audit export --account acme --after 15"));
    assert_eq!(rest, all[15..]);

    let file = state.path().join("old.jsonl");
    let file = file.to_str().unwrap();
    assert_eq!(
        state.run("audit prune --before 11", b"").status.code(),
        Some(2),
        "neither a file nor --no-export"
    );
    assert!(state.error(&format!("audit prune --before 99 --export {file}9"), b"").contains("no row 99"));
    assert_eq!(
        state.text(&format!("audit prune --before 11 --export {file}")),
        "deleted 10 rows before row 11\n"
    );
    assert_eq!(lines(&std::fs::read_to_string(file).unwrap()), all[..10]);
    assert!(
        state.error(&format!("audit prune --before 12 --export {file}"), b"").contains("never overwritten")
    );
    let left = lines(&state.text("audit export"));
    assert_eq!(left[..11], all[10..]);
    assert_eq!((left[11]["action"].as_str(), left[11]["object"].as_str()), (Some("audit.prune"), Some("11")));
    assert_eq!(state.text("audit prune --before 1d --no-export"), "deleted 0 rows before row 11\n");
    let newest = state.json("audit --limit 3", b"");
    assert_eq!(newest.as_array().unwrap().len(), 3);
    assert!(state.text("check").contains("the audit's chain ends with row 22"));
}
