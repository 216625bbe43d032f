//! Many devboxes that wait for a change: what they cost while nothing happens, and how soon they know.

use std::fs;
use std::time::{Duration, Instant};

use devbox_secrets_proto::devbox::BUNDLE_PATH;
use devbox_secrets_tests::client::Answer;
use devbox_secrets_tests::devbox::{Listener, bundle_request};
use devbox_secrets_tests::process::say;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use tokio::task::JoinSet;

/// How many devboxes wait; `DEVBOX_SECRETS_HELD` asks for another number.
const DEVBOXES: usize = 100;

/// Memory that one held request may cost the server: a TLS connection and its buffers. This build is not optimised.
const MEMORY_EACH: u64 = 256 * 1024;

/// Until the last one is answered, on a loaded machine, with programs that are not optimised. The promise is 1 s for 1,000,
/// which the bench measures; a request that is not woken would be held for a minute.
const LATENCY: Duration = Duration::from_secs(30);

fn devboxes() -> usize {
    std::env::var("DEVBOX_SECRETS_HELD").ok().and_then(|text| text.parse().ok()).unwrap_or(DEVBOXES)
}

async fn join(world: &World, count: usize) -> Vec<Listener> {
    let address = world.server.ready.devbox_address();
    let mut joined = Vec::with_capacity(count);
    for number in 0..count {
        let devbox = world.devbox(&format!("box-{number}")).await;
        joined.push(Listener::new(address).enrolled(&devbox.join_token, &devbox.id).await);
    }
    joined
}

/// Lets every devbox wait for a change; all of them do when this returns.
async fn hold(world: &World, devboxes: &[Listener], revision: u64) -> JoinSet<Answer> {
    let mut held = JoinSet::new();
    for devbox in devboxes {
        let devbox = devbox.clone();
        held.spawn(async move {
            devbox.post(BUNDLE_PATH, None, &bundle_request(Some(revision), 60_000)).await.expect("an answer")
        });
    }
    let connections = devboxes.len();
    wait::until("every request to be held", async || (descriptors(world) >= connections + 10).then_some(()))
        .await;
    held
}

fn descriptors(world: &World) -> usize {
    fs::read_dir(format!("/proc/{}/fd", world.server.program.pid())).unwrap().count()
}

/// Resident memory, in bytes (proc_pid_status(5)).
fn resident(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.server.program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_write_answers_every_devbox_of_the_account_soon_and_waiting_costs_little() {
    let world = World::start().await;
    let count = devboxes();
    let devboxes = join(&world, count).await;
    // The first revision of a new account: a devbox more changes nothing for the others.
    let revision = 1;
    assert_eq!(devboxes[0].bundle(Some(revision)).await.unwrap().status, 204);
    let before = resident(&world);
    let mut held = hold(&world, &devboxes, revision).await;
    let each = resident(&world).saturating_sub(before) / count as u64;

    let start = Instant::now();
    world.api().create("NEW", "value").await;
    let acknowledged = start.elapsed();
    while let Some(answer) = held.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    let latency = start.elapsed() - acknowledged;
    say(&format!("{count} held requests: {} KiB each, last answer after {latency:?}", each / 1024));
    assert!(latency < LATENCY, "{latency:?}");
    assert!(each < MEMORY_EACH, "{each} bytes for one held request");
}
