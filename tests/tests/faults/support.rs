//! A devbox whose control plane goes away, and the required result of each kind of absence.

use std::time::{Duration, Instant};

use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::trace::leaves_no_trace;
use devbox_secrets_tests::world::{Devbox, World};
use devbox_secrets_tests::{programs, wait};
use nix::unistd::geteuid;
use serde_json::Value;
use tokio::time::sleep;

/// The daemons' lease. A poll that nothing answers at once is held for half of it, so that at least the other half is left
/// for launches when the control plane goes away: on a loaded machine one launch may take a second.
pub(crate) const LEASE: Duration = Duration::from_secs(8);

/// Between two launches of a row: they are to show what is served when, not how fast.
const BETWEEN_LAUNCHES: Duration = Duration::from_millis(25);

/// How much later than its end a loaded machine may show what happened before.
const SLACK: Duration = Duration::from_secs(2);

/// A configuration with this lease that gives everything to the test's user.
pub(crate) fn config(server_keys: &str) -> String {
    format!(
        "[server]\n{server_keys}\n[[rule]]\nname = \"the test\"\nuid = {}\nenv = [\"*\"]\n",
        geteuid().as_raw()
    )
}

/// The same setup with [`LEASE`].
pub(crate) fn leased(setup: Setup) -> Setup {
    setup.config(&config(&format!("max_stale = \"{}s\"", LEASE.as_secs())))
}

/// A launch that does not wait.
pub(crate) fn launch(daemon: &Daemon) -> Launch {
    Launch::new(&daemon.socket).options(&["--wait", "0"])
}

/// Waits until launches get this and nothing else.
pub(crate) async fn launches_get(daemon: &Daemon, wanted: &[(&str, &Canary)]) {
    let wanted: Environment =
        wanted.iter().map(|(name, value)| ((*name).to_owned(), value.value().as_bytes().to_vec())).collect();
    let lines = || daemon.program.tail();
    wait::until("launches to get what is current", async || {
        let launched = launch(daemon).options(&["--clear-env"]).run(&["/usr/bin/env", "-0"]).await;
        assert!(matches!(launched.status, 0 | 125), "{}\n{}", launched.stderr, lines());
        let got = devbox_secrets_tests::launch::parse_environment(&launched.stdout);
        (launched.status == 0 && got == wanted).then_some(())
    })
    .await;
}

/// Whether the daemon reports that it holds no secret.
pub(crate) fn is_empty(status: &Value) -> bool {
    status["secrets"] == serde_json::json!([]) && status["memory"]["bytes_locked"] == 0
}

/// A launch that says so runs without its secrets, and is warned.
pub(crate) async fn goes_on_without(daemon: &Daemon) {
    let script = "exit $((${KEPT:+1}+7))";
    let launched = launch(daemon).options(&["--optional"]).run(&["sh", "-c", script]).await;
    assert_eq!(launched.status, 7, "the command's own status: {}", launched.stderr);
    assert_eq!(launched.stderr.lines().count(), 1, "{}", launched.stderr);
}

/// Launches until the first refusal; returns its line. No poll has been answered since `cut`.
///
/// # Panics
/// If a launch gets another value, one that began after the lease is served, or one is refused while it lasts.
pub(crate) async fn launches_until_refused(daemon: &Daemon, value: &Canary, cut: Instant) -> String {
    let mut served = 0;
    loop {
        let begun = Instant::now();
        match attempt(&launch(daemon), "KEPT").await {
            Attempt::Refused(line) => {
                assert!(served > 0, "launches go on from memory: {line}");
                assert!(cut.elapsed() > LEASE / 6, "refused during the lease: {line}");
                return line;
            }
            Attempt::Served(got) => {
                assert_eq!(got, value.value().as_bytes());
                assert!(begun < cut + LEASE + SLACK, "a launch is served past the lease");
                served += 1;
            }
        }
        sleep(BETWEEN_LAUNCHES).await;
    }
}

/// The values that a scenario works with.
pub(crate) struct Values {
    pub(crate) kept: Canary,
    pub(crate) old: Canary,
    pub(crate) new: Canary,
}

/// Three secrets: one that is kept, one that gets another value, and one that is deleted while the control plane is away.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) values: Values,
}

impl Scene {
    pub(crate) async fn start(world: World) -> Self {
        let _built = programs::shim();
        let values = Values { kept: Canary::random(), old: Canary::random(), new: Canary::random() };
        let api = world.api();
        api.create("KEPT", values.kept.value()).await;
        api.create("CHANGED", values.old.value()).await;
        api.create("DELETED", values.old.value()).await;
        Self { world, values }
    }

    /// A devbox's daemon before it is started.
    pub(crate) async fn setup(&self) -> (Devbox, Setup) {
        let devbox = self.world.devbox("box").await;
        let setup = leased(self.world.setup(&devbox));
        (devbox, setup)
    }

    /// Waits until launches get what there was before the fault.
    pub(crate) async fn serves_what_was(&self, daemon: &Daemon) {
        let Values { kept, old, .. } = &self.values;
        launches_get(daemon, &[("KEPT", kept), ("CHANGED", old), ("DELETED", old)]).await;
    }

    /// The control plane went away at `cut`: launches go on until the lease ends, and then there is nothing.
    pub(crate) async fn outlives_no_lease(&self, daemon: &Daemon, cut: Instant) {
        let told = launches_until_refused(daemon, &self.values.kept, cut).await;
        assert!(told.contains("max_stale"), "{told}");
        let status = daemon.status_where("the wipe", is_empty).await;
        assert_eq!(status["state"], "stale", "{status}");
        goes_on_without(daemon).await;
    }

    /// Changes secrets while the devbox cannot know.
    pub(crate) async fn changes(&self) {
        let api = self.world.api();
        api.update("CHANGED", self.values.new.value()).await;
        api.delete("DELETED").await;
    }

    /// The control plane is back: by itself, the daemon serves what is current.
    pub(crate) async fn comes_back(&self, daemon: &Daemon) {
        let Values { kept, new, .. } = &self.values;
        launches_get(daemon, &[("KEPT", kept), ("CHANGED", new)]).await;
        let status = daemon.status_where("all to be well", |status| status["last_error"].is_null()).await;
        assert_eq!(status["state"], "ready");
        self.leaves_no_trace(&[daemon]);
    }

    pub(crate) fn leaves_no_trace(&self, daemons: &[&Daemon]) {
        let Values { kept, old, new } = &self.values;
        leaves_no_trace(&self.world, daemons, &[kept, old, new]);
    }
}
