//! The control plane under its own faults. Each has a clear error or a clean recovery, and no acknowledged write is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use devbox_secrets_tests::client::{Answer, Api};
use devbox_secrets_tests::devbox::Listener;
use devbox_secrets_tests::process::{self, Output};
use devbox_secrets_tests::server::{self, Server};
use devbox_secrets_tests::world::{self, Devbox, World};
use devbox_secrets_tests::{needs, require_root};
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A value that needs more room than a log has left.
const LARGE: usize = 100 * 1024;

/// A small file system of its own, gone when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// At `directory/state`, where a server has its state.
    fn under(directory: &Path) -> Self {
        Self::at(&directory.join("state"))
    }

    /// At `place`, a folder that it makes.
    pub(crate) fn at(place: &Path) -> Self {
        fs::create_dir(place).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"], place);
        Self(place.to_owned())
    }

    pub(crate) fn remount(&self, mode: &str) {
        mount(&["-o", &format!("remount,{mode}")], &self.0);
    }

    /// Takes what is left, to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], place: &Path) {
    let status = Command::new("mount").args(arguments).arg(place).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

/// A server whose state is on a disk of its own. Dropped in this order: the server first.
pub(crate) struct Cramped {
    pub(crate) server: Server,
    pub(crate) disk: SmallDisk,
    directory: TempDir,
}

impl Cramped {
    pub(crate) async fn start() -> Self {
        let directory = world::directory();
        let disk = SmallDisk::under(directory.path());
        Self { server: server::dev(directory.path()).await, disk, directory }
    }

    /// The test's directory, which has room.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) async fn register(&self) -> Devbox {
        let view = self.server.api().post("/v1/devboxes", &json!({})).await.expect(200).json();
        let text = |field: &str| view[field].as_str().unwrap().to_owned();
        Devbox { id: text("id"), join_token: text("join_token") }
    }

    /// A devbox that has joined.
    async fn devbox(&self) -> Listener {
        let devbox = self.register().await;
        let listener = Listener::new(self.server.ready.devbox_address());
        listener.enrolled(&devbox.join_token, &devbox.id).await
    }
}

/// The program, started on a state that it must refuse.
async fn refusal(state: &Path) -> Output {
    let output = process::run(server::dev_command(state), b"").await;
    assert_ne!(output.status, 0);
    assert_eq!(output.stdout, b"", "no ready line");
    output
}

async fn try_create(api: &Api, name: &str, value: &str) -> StatusCode {
    api.post("/v1/secrets", &json!({ "name": name, "value": value })).await.status
}

/// The revision that a devbox that has its bundle knows: the one whose poll is unchanged.
async fn unchanged_revision(listener: &Listener) -> u64 {
    for revision in 1..1_000 {
        if listener.bundle(Some(revision)).await.unwrap().status == 204 {
            return revision;
        }
    }
    panic!("no poll is unchanged");
}

async fn state_is_good(server: &Server) {
    let checked = server.operator(&["check"], b"").await.success();
    assert!(checked.text().contains("the state is good"), "{}", checked.text());
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_unchanged_polls_and_recovers() {
    require_root!();
    let mut cramped = Cramped::start().await;
    let api = cramped.server.api();
    let devbox = cramped.devbox().await;
    let mut acknowledged = Vec::new();
    assert_eq!(try_create(&api, "BEFORE", "v").await, 200);
    let revision = unchanged_revision(&devbox).await;

    cramped.disk.fill();
    // The log may have room left from earlier writes; then it has none.
    for number in 0.. {
        let name = format!("S_{number}");
        match try_create(&api, &name, &"x".repeat(LARGE)).await {
            StatusCode::OK => acknowledged.push(name),
            StatusCode::INTERNAL_SERVER_ERROR => break,
            other => panic!("status {other}"),
        }
    }
    api.get("/v1/secrets/BEFORE").await.expect(200);
    let known = revision + u64::try_from(acknowledged.len()).unwrap();
    assert_eq!(devbox.bundle(Some(known)).await.unwrap().status, 204, "leases are renewed");
    let log = cramped.server.program.log();
    assert!(log.contains("the disk is full"), "{}", cramped.server.program.tail());

    cramped.disk.empty();
    assert_eq!(try_create(&api, "AFTER", &"x".repeat(LARGE)).await, 200);
    assert_eq!(devbox.bundle(None).await.unwrap().status, 200);
    cramped.server.program.kill();
    cramped.server.start_again().await;
    acknowledged.extend(["BEFORE", "AFTER"].map(str::to_owned));
    for name in &acknowledged {
        cramped.server.api().get(&format!("/v1/secrets/{name}")).await.expect(200);
    }
    state_is_good(&cramped.server).await;
}

#[tokio::test]
async fn a_read_only_file_system_is_named_at_start_and_served_again_once_it_can_be_written() {
    require_root!();
    let mut cramped = Cramped::start().await;
    let api = cramped.server.api();
    let devbox = cramped.devbox().await;
    assert_eq!(try_create(&api, "BEFORE", "v").await, 200);
    let revision = unchanged_revision(&devbox).await;
    assert!(cramped.server.program.stop().await.success());
    cramped.disk.remount("ro");
    let told = refusal(&cramped.server.state).await;
    assert!(told.stderr.contains(cramped.server.state.to_str().unwrap()), "{}", told.stderr);
    assert!(told.stderr.contains("Read-only"), "{}", told.stderr);
    cramped.disk.remount("rw");
    cramped.server.start_again().await;
    assert_eq!(try_create(&cramped.server.api(), "AFTER", "v").await, 200);
    assert_eq!(devbox.bundle(Some(revision + 1)).await.unwrap().status, 204);
}

/// Overwrites the middle of the database.
fn corrupt(state: &Path) {
    let file = OpenOptions::new().write(true).open(state.join("state.sqlite3")).unwrap();
    let len = file.metadata().unwrap().len();
    for page in 2..len / 4096 {
        file.write_all_at(&[0xa5; 512], page * 4096).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_database_is_not_served_and_its_backup_is_restored() {
    let mut world = World::start().await;
    let secret = world.api().create("KEPT", "value").await;
    let backup = world.path().join("backup");
    let to = ["backup", "--to", backup.to_str().unwrap()];
    world.server.operator(&to, b"").await.success();
    assert!(world.server.program.stop().await.success());
    corrupt(&world.server.state);
    let told = refusal(&world.server.state).await.stderr;
    assert!(told.contains("damaged") && told.contains("restore a backup"), "{told}");
    assert_ne!(world.server.operator(&["check"], b"").await.status, 0);

    fs::remove_file(world.server.state.join("state.sqlite3")).unwrap();
    let from = ["restore", "--from", backup.to_str().unwrap()];
    world.server.operator(&from, b"").await.success();
    let token = world.server.ready.token.clone();
    world.server.start_again().await;
    assert_eq!(world.api().with_token(&token).get("/v1/secrets/KEPT").await.expect(200).json(), secret);
}

#[tokio::test]
async fn a_database_that_is_damaged_while_it_is_served_gives_errors_and_nobody_elses_data() {
    let world = World::start().await;
    let api = world.api();
    for number in 0..50 {
        api.create(&format!("S_{number}"), &"x".repeat(3_000)).await;
    }
    let other = world.server.operator_json(&["account", "create", "other"]).await;
    let token =
        world.server.operator_json(&["token", "create", "--account", other["id"].as_str().unwrap()]).await;
    let stranger = api.with_token(token["token"].as_str().unwrap());
    corrupt(&world.server.state);
    for number in 0..50 {
        let path = format!("/v1/secrets/S_{number}");
        assert!([401, 404, 500].contains(&stranger.get(&path).await.status.as_u16()));
        let own = api.get(&path).await;
        assert!([200, 401, 404, 500].contains(&own.status.as_u16()), "{}", own.body_text());
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_state_is_refused_and_the_first_serves_on() {
    let world = World::start().await;
    let told = refusal(&world.server.state).await.stderr;
    assert!(told.contains("being served by another process"), "{told}");
    world.api().create("KEY", "v").await;
}

#[tokio::test]
async fn a_clock_that_jumps_loses_nothing_and_moves_no_time_backwards() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut world = World::with_secret("KEY", "v").await;
    let mut last = i64::MIN;
    for clock in ["+3d", "-2d", "+0d"] {
        world.server.program.kill();
        world.server.start_again_later(&libfaketime, clock).await;
        let updated = world.api().update("KEY", clock).await["update_time_ms"].as_i64().unwrap();
        assert!(updated >= last, "{clock}");
        last = updated;
    }
    state_is_good(&world.server).await;
}

async fn create_once(api: &Api, name: &str, id: &str) -> Answer {
    let body = json!({ "name": name, "value": name });
    let mut request = api.request(Method::POST, "/v1/secrets", Some(&body));
    request.headers_mut().insert("x-request-id", HeaderValue::from_str(id).unwrap());
    api.send(request).await
}

#[tokio::test]
async fn a_retry_is_known_for_a_day_also_after_a_restart() {
    let Some(libfaketime) = needs::libfaketime() else { return };
    let mut world = World::start().await;
    let first = create_once(&world.api(), "KEY", "once").await.expect(200).json();
    for (clock, status) in [("+1h", 200), ("+23h", 200), ("+25h", 400)] {
        world.server.program.kill();
        world.server.start_again_later(&libfaketime, clock).await;
        let answer = create_once(&world.api(), "KEY", "once").await.expect(status).json();
        assert!(status != 200 || answer == first, "{clock}");
    }
}

/// Creates secrets, each under an id of its own, until the server is gone; returns the name of the first that was not
/// acknowledged.
async fn write_until_killed(api: Api, round: usize, writer: usize) -> (Vec<(String, Value)>, String) {
    let mut known = Vec::new();
    for number in 0.. {
        let name = format!("S_{round}_{writer}_{number}");
        let task = tokio::spawn({
            let (api, name) = (api.clone(), name.clone());
            async move { create_once(&api, &name, &name).await }
        });
        // The harness takes a lost connection for a failure: here it is the end.
        match task.await {
            Ok(answer) if answer.status == 200 => known.push((name, answer.json())),
            _ => return (known, name),
        }
    }
    unreachable!("the server is killed")
}

async fn kill_in_the_middle(world: &mut World, round: usize) -> Vec<(Vec<(String, Value)>, String)> {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write_until_killed(world.api(), round, writer));
    }
    let marker = format!("S_{round}_0_10");
    let reader = world.api();
    devbox_secrets_tests::wait::until("some writes", async || {
        (reader.get(&format!("/v1/secrets/{marker}")).await.status == 200).then_some(())
    })
    .await;
    world.server.program.kill();
    let known = writers.join_all().await;
    world.server.start_again().await;
    known
}

#[tokio::test]
async fn a_retry_makes_a_write_happen_exactly_once_whenever_the_server_is_killed() {
    let mut world = World::start().await;
    let mut count = 0;
    for round in 0..5 {
        for (acknowledged, in_doubt) in kill_in_the_middle(&mut world, round).await {
            let api = world.api();
            for (name, view) in &acknowledged {
                assert_eq!(&api.get(&format!("/v1/secrets/{name}")).await.expect(200).json(), view);
            }
            let retried = create_once(&api, &in_doubt, &in_doubt).await.expect(200).json();
            assert_eq!(create_once(&api, &in_doubt, &in_doubt).await.expect(200).json(), retried);
            count += acknowledged.len() + 1;
        }
    }
    let listed = world.api().get("/v1/secrets?limit=1").await.expect(200).json();
    assert_eq!(listed["total_count"], count);
    let audit = world.server.operator_json(&["audit", "--limit", "1000000"]).await;
    let done = audit
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["action"] == "secret.create" && row["outcome"] == "done");
    assert_eq!(done.count(), count, "each is written once");
    state_is_good(&world.server).await;
}
