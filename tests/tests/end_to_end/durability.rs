//! Acknowledged writes survive whatever happens to the control plane, which refuses to touch a state that it cannot read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devbox_secrets_tests::client::Api;
use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::process::{self, Output};
use devbox_secrets_tests::server;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use serde_json::json;
use tokio::task::JoinSet;

const WRITERS: usize = 8;
const WRITES: usize = 1_000;
const ROUNDS: usize = 4;

/// The writes that one writer knows to be stored.
struct Acknowledged {
    created: Environment,
    counter: String,
    /// The counter's last acknowledged value, and the one that was on its way when the server died.
    counted: (usize, usize),
}

/// Creates secrets and counts one up in between, until the server is gone.
async fn write(api: Api, round: usize, writer: usize, written: Arc<AtomicUsize>) -> Acknowledged {
    let counter = format!("COUNTER_{round}_{writer}");
    let mut known = Acknowledged { created: Environment::new(), counter: counter.clone(), counted: (0, 0) };
    if !stored(&api, "/v1/secrets", &json!({ "name": counter, "value": "0" })).await {
        return known;
    }
    for number in 1.. {
        let (name, value) =
            (format!("S_{round}_{writer}_{number}"), format!("value {round}/{writer}/{number}"));
        if !stored(&api, "/v1/secrets", &json!({ "name": name, "value": value })).await {
            break;
        }
        known.created.insert(name, value.into_bytes());
        known.counted.1 = number;
        let count = json!({ "value": number.to_string() });
        if !stored(&api, &format!("/v1/secrets/{counter}"), &count).await {
            break;
        }
        known.counted.0 = number;
        written.fetch_add(2, Ordering::Relaxed);
    }
    known
}

/// Whether the server acknowledged the write. One that it did not may be stored or not.
async fn stored(api: &Api, path: &str, body: &serde_json::Value) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(api.address).await else { return false };
    let Ok(mut connection) = devbox_secrets_tests::client::Connection::new(stream, api.protocol).await else {
        return false;
    };
    let answer = connection.send(api.request(hyper::Method::POST, path, Some(body))).await;
    answer.is_ok_and(|answer| answer.expect(200).json().is_object())
}

/// Kills the server in the middle of a round's share of the writes.
async fn round(world: &mut World, number: usize) -> Vec<Acknowledged> {
    let written = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(world.api(), number, writer, Arc::clone(&written)));
    }
    wait::until("a round's share of the writes", async || {
        (written.load(Ordering::Relaxed) >= WRITES / ROUNDS).then_some(())
    })
    .await;
    world.server.program.kill();
    let known = writers.join_all().await;
    world.server.start_again().await;
    known
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9_in_the_middle_of_a_thousand() {
    let mut world = World::start().await;
    let mut known = Vec::new();
    for number in 0..ROUNDS {
        known.extend(round(&mut world, number).await);
    }
    let daemon = world.daemon().await;
    let stored = Launch::new(&daemon.socket).environment().await;
    for writer in &known {
        for (name, value) in &writer.created {
            assert_eq!(stored.get(name), Some(value), "{name}");
        }
        let (last, next) = writer.counted;
        let counted = stored.get(&writer.counter).map(|value| String::from_utf8_lossy(value).into_owned());
        let possible = [last, next].map(|count| Some(count.to_string()));
        assert!(possible.contains(&counted) || last == 0, "{}: {counted:?} {possible:?}", writer.counter);
    }
    let count: usize = known.iter().map(|writer| writer.created.len()).sum();
    assert!(count >= WRITES / 2, "{count} secrets were written");
}

#[tokio::test]
async fn the_same_directory_has_the_same_account_a_new_token_and_the_old_one_still_works() {
    let mut world = World::start().await;
    let secret = world.api().create("KEPT", "value").await;
    let (before, old_token) = (world.server.ready.account.clone(), world.server.ready.token.clone());
    assert!(world.server.program.stop().await.success());
    world.server.start_again().await;
    assert_eq!(world.server.ready.account, before);
    assert_ne!(world.server.ready.token, old_token);
    for api in [world.api(), world.api().with_token(&old_token)] {
        assert_eq!(api.get("/v1/secrets/KEPT").await.expect(200).json(), secret);
    }
}

fn master_key(state: &Path) -> PathBuf {
    let files = fs::read_dir(state).unwrap().flatten().map(|entry| entry.path());
    let mut keys = files.filter(|path| path.file_name().unwrap().to_str().unwrap().contains("master"));
    keys.next().expect("dev keeps its master key in the state directory")
}

/// Starts the server, which must not come up, and returns what it said.
async fn refusal(world: &World) -> Output {
    let output = process::run(server::dev_command(&world.server.state), b"").await;
    assert_ne!(output.status, 0);
    assert_eq!(output.stdout, b"", "no ready line");
    assert!(output.stderr.contains("master key"), "{}", output.stderr);
    output
}

#[tokio::test]
async fn a_lost_or_changed_master_key_is_refused_at_start_and_the_data_stays() {
    let mut world = World::with_secret("KEPT", "value").await;
    assert!(world.server.program.stop().await.success());
    let path = master_key(&world.server.state);
    let key = fs::read(&path).unwrap();

    let other = World::start().await;
    fs::copy(master_key(&other.server.state), &path).unwrap();
    refusal(&world).await;
    fs::write(&path, &key[..key.len() / 2]).unwrap();
    refusal(&world).await;
    fs::remove_file(&path).unwrap();
    refusal(&world).await;
    assert!(!path.exists(), "a new key is not left where the lost one belongs");

    fs::write(&path, &key).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    world.server.start_again().await;
    let daemon = world.daemon().await;
    assert_eq!(Launch::new(&daemon.socket).environment().await["KEPT"], b"value");
}

#[tokio::test]
async fn a_master_key_that_others_may_read_is_refused() {
    let mut world = World::start().await;
    assert!(world.server.program.stop().await.success());
    fs::set_permissions(master_key(&world.server.state), fs::Permissions::from_mode(0o644)).unwrap();
    let told = refusal(&world).await;
    assert!(told.stderr.contains("600") || told.stderr.contains("chmod"), "{}", told.stderr);
}

#[tokio::test]
async fn state_and_key_are_private_to_their_owner() {
    let world = World::start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.server.state), 0o700);
    for entry in fs::read_dir(&world.server.state).unwrap().flatten() {
        let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&entry.path()), wanted, "{}", entry.path().display());
    }
}
