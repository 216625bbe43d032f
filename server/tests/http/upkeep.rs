//! Operators' work on a whole state, beside a server that serves it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;

use crate::program::Dev;
use crate::support::{Call, Protocol, TestServer, get, on_disk, post, send};

pub(crate) fn run(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devbox-secrets-server"))
        .args(args)
        .arg("--state")
        .arg(state)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn succeed(state: &Path, args: &[&str]) -> String {
    let output = run(state, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn fail(state: &Path, args: &[&str]) -> String {
    let output = run(state, args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{args:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// A server, and the paths of its state and of a file beside it.
async fn served() -> (TestServer, PathBuf, PathBuf) {
    let server = TestServer::start().await;
    let (state, beside) = (server.state.path().join("state"), server.state.path().join("beside"));
    (server, state, beside)
}

fn create(name: &str, value: &str) -> Call {
    post("/v1/secrets", &json!({ "name": name, "value": value }).to_string())
}

/// An empty state directory with the master key of `state`.
pub(crate) fn empty_with_key_of(state: &Path, name: &str) -> PathBuf {
    let directory = state.with_file_name(name);
    fs::create_dir(&directory).unwrap();
    fs::copy(state.join("master.key"), directory.join("master.key")).unwrap();
    close_to_others(&directory);
    directory
}

fn close_to_others(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
}

pub(crate) async fn execute(database: &Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_made_beside_a_server_is_private_encrypted_and_restores_to_the_same_state() {
    let (server, state, file) = served().await;
    server.call(create("KEPT", "canary-71ac0f")).await.expect(200);
    succeed(&state, &["backup", "--to", file.to_str().unwrap()]);
    server.call(create("LATER", "v")).await.expect(200);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(!on_disk(server.state.path(), b"canary-71ac0f"));
    assert!(fail(&state, &["backup", "--to", file.to_str().unwrap()]).contains("exists"));

    let restored = empty_with_key_of(&state, "restored");
    let told = succeed(&restored, &["restore", "--from", file.to_str().unwrap()]);
    assert!(told.contains("1 accounts, 1 secrets"), "{told}");
    let again = Dev::start(&restored);
    let token = server.token.clone();
    let address = again.address().to_owned();
    let ask = async |path: &str| {
        let call = get(path).header("authorization", &format!("Bearer {token}"));
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        send(Protocol::Http1, stream, call).await.unwrap().status
    };
    assert_eq!(ask("/v1/secrets/KEPT").await, 200, "its tokens are the old ones");
    assert_eq!(ask("/v1/secrets/LATER").await, 404);
}

#[tokio::test]
async fn a_devbox_never_takes_a_restored_state_for_what_it_has() {
    let (server, state, file) = served().await;
    let revision = async |state: &Path| {
        let options = SqliteConnectOptions::new().filename(state.join("state.sqlite3"));
        let mut connection = options.connect().await.unwrap();
        let row: (i64,) =
            sqlx::query_as("SELECT revision FROM accounts").fetch_one(&mut connection).await.unwrap();
        row.0
    };
    succeed(&state, &["backup", "--to", file.to_str().unwrap()]);
    for name in ["A", "B", "C"] {
        server.call(create(name, "v")).await.expect(200);
    }
    let restored = empty_with_key_of(&state, "restored");
    succeed(&restored, &["restore", "--from", file.to_str().unwrap()]);
    assert!(revision(&restored).await > revision(&state).await);
}

#[tokio::test]
async fn a_restored_audit_names_its_gap_and_reuses_no_number_of_a_lost_row() {
    let (server, state, file) = served().await;
    server.call(create("KEPT", "v")).await.expect(200);
    let rows = |state: &Path| -> Vec<serde_json::Value> {
        let text = succeed(state, &["audit", "export"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    succeed(&state, &["backup", "--to", file.to_str().unwrap()]);
    server.call(create("LOST", "v")).await.expect(200);
    let lost = rows(&state).last().unwrap()["sequence"].as_i64().unwrap();
    let restored = empty_with_key_of(&state, "restored");
    succeed(&restored, &["restore", "--from", file.to_str().unwrap()]);
    let rows = rows(&restored);
    let last = &rows[rows.len() - 1];
    let kept = &rows[rows.len() - 2];
    assert_eq!(last["action"], "state.restore");
    assert!(last["sequence"].as_i64().unwrap() > lost);
    let gap = format!("a gap after row {}:", kept["sequence"]);
    assert!(last["reason"].as_str().unwrap().contains(&gap), "{last}");
    let told = succeed(&restored, &["check"]);
    assert!(told.contains(&format!("chain ends with row {}", last["sequence"])), "{told}");
}

#[tokio::test]
async fn a_row_of_the_audit_that_was_altered_is_named_by_a_check() {
    let (server, state, _) = served().await;
    server.call(create("KEY", "v")).await.expect(200);
    let database = state.join("state.sqlite3");
    execute(&database, "DROP TRIGGER audit_is_never_updated").await;
    execute(&database, "UPDATE audit SET actor = 'nobody' WHERE action = 'secret.create'").await;
    let error = fail(&state, &["check"]);
    assert!(error.contains("of the audit does not follow on the row before it"), "{error}");
}

#[tokio::test]
async fn a_backup_is_not_restored_over_a_served_state() {
    let (_server, state, file) = served().await;
    succeed(&state, &["backup", "--to", file.to_str().unwrap()]);
    assert!(fail(&state, &["restore", "--from", file.to_str().unwrap()]).contains("being served"));
}

#[tokio::test]
async fn a_refused_restore_leaves_no_state_behind() {
    let (server, state, file) = served().await;
    server.call(create("KEPT", "v")).await.expect(200);
    let path = file.to_str().unwrap();
    succeed(&state, &["backup", "--to", path]);
    let directory = empty_with_key_of(&state, "other");
    let database = directory.join("state.sqlite3");

    fs::write(directory.join("master.key"), [9; 32]).unwrap();
    assert!(fail(&directory, &["restore", "--from", path]).contains("another master key"));
    assert!(!database.exists());
    fs::copy(state.join("master.key"), directory.join("master.key")).unwrap();
    let whole = fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"no database", b""] {
        fs::write(&file, damaged).unwrap();
        fail(&directory, &["restore", "--from", path]);
        assert!(!database.exists());
    }
    fs::write(&file, &whole).unwrap();
    succeed(&directory, &["restore", "--from", path]);
    assert!(fail(&directory, &["restore", "--from", path]).contains("already"));
}

#[tokio::test]
async fn check_finds_a_record_that_was_altered_or_moved_and_names_it() {
    let (server, state, _) = served().await;
    let id = server.call(create("KEY", "v")).await.expect(200).text("id");
    server.call(create("OTHER", "w")).await.expect(200);
    assert!(succeed(&state, &["check"]).contains("the state is good: 1 accounts, 2 secrets"));
    execute(
        &state.join("state.sqlite3"),
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'OTHER') WHERE name = 'KEY'",
    )
    .await;
    assert!(fail(&state, &["check"]).contains(&id));
}

#[tokio::test]
async fn check_refuses_what_is_no_state_or_of_another_key() {
    let (_server, state, beside) = served().await;
    assert_eq!(run(&beside, &["check"]).status.code(), Some(2));
    fs::write(state.join("master.key"), [9; 32]).unwrap();
    assert!(fail(&state, &["check"]).contains("another master key"));
}

/// Writes until it is stopped, and fails at the first write that is not acknowledged.
async fn write(server: Arc<TestServer>, writer: usize, stop: Arc<AtomicBool>) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        server.call(create(&format!("S_{writer}_{written}"), "v")).await.expect(200);
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_is_changed_under_load_without_a_failed_request_and_the_old_one_opens_nothing() {
    let (server, state, new_key) = served().await;
    let server = Arc::new(server);
    let stop = Arc::new(AtomicBool::new(false));
    let old = fs::read(state.join("master.key")).unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write(server.clone(), writer, stop.clone()));
    }
    let directory = state.clone();
    let rotations = tokio::task::spawn_blocking(move || {
        for number in 0..3 {
            let file = format!("{}-{number}", new_key.display());
            succeed(&directory, &["keys", "rotate", "--new-master-key", &file]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    rotations.await.unwrap();
    let written: usize = writers.join_all().await.into_iter().sum();
    let told = succeed(&state, &["check"]);
    assert!(told.contains(&format!("{written} secrets")), "{told}");
    succeed(&state, &["account", "create", "made-after"]);
    server.call(create("AFTER", "v")).await.expect(200);

    fs::write(state.join("master.key"), old).unwrap();
    assert!(fail(&state, &["check"]).contains("another master key"));
}

#[tokio::test]
async fn a_rotation_that_was_interrupted_serves_on_and_is_ended_by_doing_it_again() {
    let (server, state, new_key) = served().await;
    server.call(create("KEY", "v")).await.expect(200);
    let key = state.join("master.key");
    let old = fs::read(&key).unwrap();
    let args = ["keys", "rotate", "--new-master-key", new_key.to_str().unwrap()];
    succeed(&state, &args);
    assert!(fail(&state, &args).contains("in use"));
    // As if it had been killed after the database was written and before the file took its place.
    fs::rename(&key, state.join("master.key.next")).unwrap();
    fs::write(&key, &old).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    succeed(&state, &["check"]);
    server.call(create("MORE", "v")).await.expect(200);
    succeed(&state, &args);
    assert!(!state.join("master.key.next").exists());
    succeed(&state, &["check"]);
}

#[tokio::test]
async fn one_state_is_served_by_one_server() {
    let (_server, state, _) = served().await;
    let error = fail(&state, &["dev"]);
    assert!(error.contains("being served by another process"), "{error}");
}

#[tokio::test]
async fn a_state_of_a_newer_program_is_neither_served_nor_checked() {
    let (server, state, _) = served().await;
    server.call(create("KEY", "v")).await.expect(200);
    execute(
        &state.join("state.sqlite3"),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'to come', 1, x'00', 0)",
    )
    .await;
    assert!(fail(&state, &["check"]).contains("newer version"));
    assert!(fail(&state, &["account", "list"]).contains("newer version"));
}
