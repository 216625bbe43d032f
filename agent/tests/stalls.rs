//! The real program stands still while secrets are deleted. When it continues, a launch that waits already gets none of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devbox_launch_proto::ErrorCode;
use devbox_secrets_tests::wait;
use hyper::StatusCode;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use support::config_file;
use support::control_plane::{ControlPlane, Script, bundle};
use support::daemon::Daemon;
use support::launch::{answer, connect, launch};

const ROUNDS: u64 = 10;
/// Promise P6: a deleted secret is not served after this time.
const REVOKED_IN: Duration = Duration::from_secs(1);
/// A launch that waits for a control plane that is away waits for no longer than this: its bound, and what a busy machine adds.
const PATIENT: Duration = Duration::from_secs(10);

struct Rig {
    plane: Arc<ControlPlane>,
    daemon: Daemon,
    _config: TempDir,
}

impl Rig {
    /// `poll_wait`: how long the server holds a poll, in seconds.
    async fn start(poll_wait: u32) -> Self {
        let plane = ControlPlane::start(bundle(1, &[("GOES", "one"), ("STAYS", "two")])).await;
        let rule = format!("[[rule]]\nuid = {}\nenv = [\"*\"]\n", nix::unistd::geteuid());
        let (dir, config) = config_file(&format!("[server]\npoll_wait = \"{poll_wait}s\"\n{rule}"));
        let daemon = Daemon::start(&plane, &["--config", config.to_str().unwrap()]);
        daemon.until_ready().await;
        Self { plane, daemon, _config: dir }
    }

    /// The daemon's process makes no step until it continues.
    async fn stop(&self) {
        self.daemon.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.daemon.pid());
        let has_stopped = || fs::read_to_string(&stat).unwrap().contains(") T ");
        wait::yielding("the daemon to be stopped", has_stopped).await;
    }

    /// Continues after the time that a deletion may take, with a launch in the backlog. Returns what that launch gets.
    async fn go_on_with_a_launch(&self) -> Result<String, ErrorCode> {
        sleep(REVOKED_IN).await;
        let mut waiting = connect(&self.daemon.launch_socket()).await;
        self.daemon.signal(Signal::SIGCONT);
        answer(&mut waiting).await
    }

    /// Until the answer to the poll that is under way now, if there is one, has been sent.
    async fn until_answered(&self) {
        let under_way = self.plane.seen().bundles.len();
        self.plane.until(|seen| seen.answered >= under_way).await;
    }
}

/// The secrets before a deletion, in one of two revisions.
fn both(round: u64, change: u64) -> Script {
    bundle(3 * round + change, &[("GOES", "one"), ("STAYS", "two")])
}

fn one(round: u64) -> Script {
    bundle(3 * round + 2, &[("STAYS", "two")])
}

#[tokio::test]
async fn a_secret_deleted_after_the_held_poll_ended_unread_is_never_served() {
    let rig = Rig::start(1).await;
    for round in 1..=ROUNDS {
        rig.plane.answer(both(round, 0));
        rig.daemon.until(|status| status.revision == Some(3 * round)).await;
        rig.stop().await;
        rig.until_answered().await;
        rig.plane.answer(one(round));
        assert_eq!(rig.go_on_with_a_launch().await.unwrap(), "STAYS=two\0", "round {round}");
    }
}

#[tokio::test]
async fn a_secret_deleted_after_an_unread_change_is_never_served() {
    let rig = Rig::start(60).await;
    for round in 1..=ROUNDS {
        rig.plane.answer(both(round, 0));
        rig.daemon.until(|status| status.revision == Some(3 * round)).await;
        // The poll that confirms it has ended, and the next one is held.
        let asked = rig.plane.seen().bundles.len();
        launch(&rig.daemon.launch_socket()).await.unwrap();
        rig.plane.until(|seen| seen.bundles.len() >= asked && seen.answered < seen.bundles.len()).await;
        rig.stop().await;
        // A change of nothing: its answer waits unread, and no poll is held for the deletion that follows.
        rig.plane.answer(both(round, 1));
        rig.until_answered().await;
        rig.plane.answer(one(round));
        assert_eq!(rig.go_on_with_a_launch().await.unwrap(), "STAYS=two\0", "round {round}");
    }
}

#[tokio::test]
async fn a_devbox_that_was_shut_down_meanwhile_is_refused() {
    let rig = Rig::start(1).await;
    rig.stop().await;
    rig.until_answered().await;
    rig.plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    assert_eq!(rig.go_on_with_a_launch().await, Err(ErrorCode::Denied));
}

#[tokio::test]
async fn without_the_control_plane_a_launch_waits_a_moment_and_the_lease_decides() {
    let rig = Rig::start(60).await;
    let Rig { plane, daemon, _config } = rig;
    daemon.signal(Signal::SIGSTOP);
    plane.answer(Script::HangUp);
    let started = Instant::now();
    let mut waiting = connect(&daemon.launch_socket()).await;
    daemon.signal(Signal::SIGCONT);
    assert_eq!(answer(&mut waiting).await.unwrap(), "GOES=one\0STAYS=two\0");
    for _ in 0..100 {
        launch(&daemon.launch_socket()).await.unwrap();
    }
    assert!(started.elapsed() < PATIENT, "{:?}", started.elapsed());
}
