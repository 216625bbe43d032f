//! The real program, with nothing to do: a host runs thousands of these.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::sleep;

use support::config_file;
use support::control_plane::{ControlPlane, bundle};
use support::daemon::Daemon;

const WINDOW: Duration = Duration::from_secs(60);
/// Promised for an idle minute, of all threads together.
const MAX_WAKES: u64 = 6;

#[tokio::test]
async fn an_idle_daemon_wakes_at_most_six_times_a_minute() {
    let (_dir, config) = config_file("[server]\npoll_wait = \"60s\"\n[log]\nlevel = \"info\"\n");
    let plane = ControlPlane::start(bundle(1, &[("A", "one")])).await;
    let daemon = Daemon::start(&plane, &["--config", config.to_str().unwrap()]);
    daemon.until_ready().await;
    // Pages for launches are prepared, and a poll is held.
    plane.until(|seen| seen.bundles.len() > seen.answered).await;
    let before = wakes(daemon.pid());
    sleep(WINDOW).await;
    let wakes = wakes(daemon.pid()) - before;
    assert!(wakes <= MAX_WAKES, "{wakes} wakes in a minute");
}

/// How often the threads of `pid` have waited for something (proc_pid_status(5)).
fn wakes(pid: Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| waited(&fs::read_to_string(thread.unwrap().path().join("status")).unwrap())).sum()
}

fn waited(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}
