//! A server with nothing to do. The daemon's own test of this kind is in its crate.

use std::fs;
use std::time::Duration;

use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use tokio::time::sleep;

const WINDOW: Duration = Duration::from_secs(60);
/// Promised for an idle minute with one devbox, of all threads together.
const MAX_WAKES: u64 = 60;
/// The watcher has stopped listening for a commit if a short window has no more wakes.
const SETTLED: u64 = 6;
const SHORT_WINDOW: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_idle_server_with_a_devbox_wakes_at_most_sixty_times_a_minute() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    wait::until("the server to settle", async || {
        (wakes_in(SHORT_WINDOW, &world).await <= SETTLED).then_some(())
    })
    .await;
    let wakes = wakes_in(WINDOW, &world).await;
    assert!(wakes <= MAX_WAKES, "{wakes} wakes in a minute");
    drop(daemon);
}

async fn wakes_in(window: Duration, world: &World) -> u64 {
    let before = wakes(world);
    sleep(window).await;
    wakes(world) - before
}

/// How often the server's threads have waited for something (proc_pid_status(5)).
fn wakes(world: &World) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", world.server.program.pid())).unwrap();
    threads.map(|thread| waited(&fs::read_to_string(thread.unwrap().path().join("status")).unwrap())).sum()
}

fn waited(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}
