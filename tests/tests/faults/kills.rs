//! kill -9 in loops, at whatever moment: each launch has its secrets and its own status or is refused, and what was
//! acknowledged is what devboxes get.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::client::{self, Api};
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::process::Program;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Scene, goes_on_without, launch, leased};

const KILLS: usize = 20;
/// Launchers that go on through all of them.
const LAUNCHERS: usize = 3;

/// Some moment or other, within a tenth of a second.
async fn some_time() {
    sleep(Duration::from_millis(u64::from(random_byte() % 100))).await;
}

fn random_byte() -> u8 {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).unwrap();
    byte[0]
}

/// Launches until `done`; returns what became of each.
async fn launch_until(launch: Launch, done: Arc<AtomicBool>) -> Vec<Attempt> {
    let mut all = Vec::new();
    while !done.load(Ordering::Relaxed) {
        all.push(attempt(&launch, "KEPT").await);
    }
    all
}

fn launchers(launch: &Launch, done: &Arc<AtomicBool>) -> JoinSet<Vec<Attempt>> {
    (0..LAUNCHERS).map(|_| launch_until(launch.clone(), Arc::clone(done))).collect()
}

/// A daemon at the same socket again, after the last one was killed. Its join token was used: it joins as another devbox.
async fn next_daemon(scene: &Scene) -> Daemon {
    let devbox = scene.world.devbox("box").await;
    let directory = scene.world.path().join("box");
    leased(Setup::new(&directory, &scene.world.server.ready.devbox, &devbox.join_token)).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_at_any_moment_leaves_no_launch_without_its_secrets_or_its_status() {
    let scene = Scene::start(World::start().await).await;
    let mut daemon = next_daemon(&scene).await;
    let done = Arc::new(AtomicBool::new(false));
    let launchers = launchers(&launch(&daemon), &done);
    for _ in 0..KILLS {
        some_time().await;
        daemon.program.kill();
        daemon = next_daemon(&scene).await;
    }
    done.store(true, Ordering::Relaxed);
    let attempts: Vec<Attempt> = launchers.join_all().await.into_iter().flatten().collect();
    let (served, refused): (Vec<_>, Vec<_>) = attempts.iter().partition(|attempt| attempt.value().is_some());
    assert!(!refused.is_empty() && !served.is_empty(), "{} served, {} refused", served.len(), refused.len());
    let kept = scene.values.kept.value().as_bytes();
    assert!(served.iter().all(|attempt| attempt.value() == Some(kept)));
    scene.serves_what_was(&daemon).await;
    scene.leaves_no_trace(&[&daemon]);
}

/// The knowledge of a writer: the names that it created, those of them that it deleted, those of which it has no answer, and the
/// last acknowledged value of the counter.
#[derive(Default)]
struct Known {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    in_doubt: BTreeSet<String>,
    counter: usize,
}

impl Known {
    /// Whether launches get every acknowledged write. A write without an acknowledgement may be there or not.
    fn is_in(&self, got: &Environment) -> bool {
        let certain = |name: &&String| !self.in_doubt.contains(*name);
        let kept = self.created.difference(&self.deleted).filter(certain).all(|name| got.contains_key(name));
        let gone = self.deleted.iter().filter(certain).all(|name| !got.contains_key(name));
        let counter = [self.counter, self.counter + 1].map(|value| value.to_string().into_bytes());
        kept && gone && counter.contains(&got["COUNTER"])
    }
}

struct Writer {
    api: Api,
    known: Known,
}

impl Writer {
    /// Creates, deletes every second one, and counts, until the server is gone.
    async fn write(mut self, round: usize) -> Known {
        for number in 0.. {
            let name = format!("S_{round}_{number}");
            let written = self.create(&name).await && (number % 2 == 0 || self.delete(&name).await);
            if !written || !self.count().await {
                break;
            }
        }
        self.known
    }

    async fn create(&mut self, name: &str) -> bool {
        let body = json!({ "name": name, "value": name });
        let created = self.acknowledged("/v1/secrets".to_owned(), body, Some(name)).await;
        created && self.known.created.insert(name.to_owned())
    }

    async fn delete(&mut self, name: &str) -> bool {
        let deleted = self.acknowledged(format!("/v1/secrets/{name}/delete"), json!({}), Some(name)).await;
        deleted && self.known.deleted.insert(name.to_owned())
    }

    async fn count(&mut self) -> bool {
        let next = self.known.counter + 1;
        let body = json!({ "value": next.to_string() });
        let counted = self.acknowledged("/v1/secrets/COUNTER".to_owned(), body, None).await;
        self.known.counter += usize::from(counted);
        counted
    }

    /// Whether a write has been acknowledged; until it is, `name` is in doubt.
    async fn acknowledged(&mut self, path: String, body: Value, name: Option<&str>) -> bool {
        self.known.in_doubt.extend(name.map(str::to_owned));
        let api = self.api.clone();
        // The harness takes a lost connection for a failure: here it is the end.
        let answer = tokio::spawn(async move { api.post(&path, &body).await }).await;
        let done = answer.is_ok_and(|answer| answer.status == 200);
        if let Some(name) = name.filter(|_| done) {
            self.known.in_doubt.remove(name);
        }
        done
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_writes_loses_none_of_them_on_the_way_to_a_devbox() {
    let mut world = World::with_secret("COUNTER", "0").await;
    let daemon = world.daemon().await;
    let mut known = Known::default();
    // A loaded machine may not get through a write in some of the rounds.
    for round in 0.. {
        if round >= KILLS && known.counter > KILLS && !known.deleted.is_empty() {
            break;
        }
        assert!(round < 10 * KILLS, "only {} counted", known.counter);
        let writer = tokio::spawn(Writer { api: world.api(), known }.write(round));
        some_time().await;
        world.server.program.kill();
        known = writer.await.unwrap();
        world.server.start_again().await;
    }
    wait::until("launches to get all that was acknowledged, and nothing that was deleted", async || {
        known.is_in(&Launch::new(&daemon.socket).environment().await).then_some(())
    })
    .await;
}

/// Waits until a launch that waits is in the daemon's hands.
async fn holds_a_launch(daemon: &Daemon) {
    wait::until("the daemon to hold the launch", async || {
        let metrics = client::get_unix(&daemon.admin_socket, "/metrics").await.ok()?.body_text();
        metrics.contains("\ndevbox_secretsd_launch_connections 1\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_launch_that_waits_outlives_its_daemon_and_is_served_by_the_next_one() {
    let scene = Scene::start(World::start().await).await;
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut daemon = next_daemon(&scene).await;
        daemon.operator("quiesce", &[], "").await.success();
        let waiting = Launch::new(&daemon.socket).options(&["--wait", "60"]);
        let waiting = tokio::spawn(async move { attempt(&waiting, "KEPT").await });
        holds_a_launch(&daemon).await;
        daemon.program.signal(end);
        daemon.program.end().await;
        let _daemon = next_daemon(&scene).await;
        let waited = waiting.await.unwrap();
        assert_eq!(waited.value(), Some(scene.values.kept.value().as_bytes()), "{end}: {waited:?}");
    }
}

/// Stops a program that may have ended meanwhile, and that nobody has waited for.
fn stop(program: &Program) {
    let pid = Pid::from_raw(program.pid().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
}

/// Programs at the launch socket that stop or die at some moment of their exchange with the daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_stopped_or_killed_in_its_exchange_costs_the_others_nothing() {
    let scene = Scene::start(World::start().await).await;
    let daemon = scene.setup().await.1.start().await;
    let done = Arc::new(AtomicBool::new(false));
    let launchers = launchers(&launch(&daemon), &done);
    let mut stopped = Vec::new();
    for number in 0..KILLS {
        let mut command = launch(&daemon).command(&["true"]);
        let mut program = Program::start(&mut command, &scene.world.path().join("log/shims.log"));
        sleep(Duration::from_micros(u64::from(random_byte()) * 8)).await;
        if number % 2 == 0 {
            program.kill();
        } else {
            stop(&program);
            stopped.push(program);
        }
    }
    let kept = scene.values.kept.value().as_bytes();
    for _ in 0..KILLS {
        assert_eq!(attempt(&launch(&daemon), "KEPT").await.value(), Some(kept));
    }
    done.store(true, Ordering::Relaxed);
    for attempt in launchers.join_all().await.into_iter().flatten() {
        assert_eq!(attempt.value(), Some(kept), "{attempt:?}");
    }
    drop(stopped);
    scene.serves_what_was(&daemon).await;
    let values: [&Canary; 2] = [&scene.values.kept, &scene.values.old];
    devbox_secrets_tests::trace::leaves_no_trace(&scene.world, &[&daemon], &values);
}

#[tokio::test]
async fn a_stopped_daemon_keeps_no_launch_longer_than_its_patience() {
    let scene = Scene::start(World::start().await).await;
    let mut daemon = scene.setup().await.1.start().await;
    scene.serves_what_was(&daemon).await;
    daemon.program.signal(Signal::SIGSTOP);
    let needed = launch(&daemon);
    let (refused, ()) = tokio::join!(attempt(&needed, "KEPT"), goes_on_without(&daemon));
    let told = refused.refusal();
    assert!(told.contains("did not answer"), "{told}");
    daemon.program.signal(Signal::SIGCONT);
    scene.serves_what_was(&daemon).await;
    scene.leaves_no_trace(&[&daemon]);
}
