//! One devbox of many: the daemon's own poller, with its own certificate, connection and pages, without a process around it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devbox_secrets_proto::join_token::JoinToken;
use devbox_secretsd::control_plane::ServerUrl;
use devbox_secretsd::identity::{Identity, enroll};
use devbox_secretsd::memory::Vault;
use devbox_secretsd::sync::{PollTimes, Poller, Progress};
use devbox_secretsd::sys::SecretMemory;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// As the daemon's own settings have it.
pub(crate) const PACE: PollTimes =
    PollTimes { poll_wait: Duration::from_secs(30), max_stale: Duration::from_secs(3_600) };

/// A devbox holds a new generation, and has wiped the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) revision: u64,
}

/// A devbox that polls until it is dropped.
#[derive(Debug)]
pub(crate) struct Devbox {
    task: JoinHandle<()>,
    progress: Arc<Progress>,
}

/// A certificate for a join token.
pub(crate) async fn join(url: ServerUrl, token: String) -> Result<Identity> {
    let token = JoinToken::parse(token.as_bytes())?;
    enroll::redeem(&url, &token).await.context("a devbox could not join")
}

impl Devbox {
    /// Polls on `runtime` as `identity`, and tells `arrivals` of each generation.
    pub(crate) fn start(
        runtime: &Handle,
        url: ServerUrl,
        identity: Identity,
        memory: SecretMemory,
        arrivals: Sender<Arrival>,
    ) -> Self {
        let (vault, progress) = (Arc::new(Vault::new("no bundle has arrived yet")), Arc::default());
        let poller = Poller::new(
            url,
            identity,
            memory,
            Arc::clone(&vault),
            Arc::clone(&progress),
            PACE,
            Arc::default(),
        );
        Self { task: runtime.spawn(poll(poller, vault, arrivals)), progress }
    }

    /// The current failure.
    pub(crate) fn failure(&self) -> Option<String> {
        self.progress.snapshot().failure.map(|failure| failure.message)
    }
}

impl Drop for Devbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll(mut poller: Poller<'static>, vault: Arc<Vault>, arrivals: Sender<Arrival>) {
    let mut held = None;
    loop {
        let pause = poller.turn().await;
        let at = Instant::now();
        let current = vault.current().ok().map(|generation| generation.revision());
        if let Some(revision) = current.filter(|_| current != held) {
            // The receiver is gone once the bench ends.
            let _ = arrivals.send(Arrival { at, revision });
        }
        held = current;
        tokio::time::sleep(pause).await;
    }
}
