//! Many devboxes in this process, and what arrives at them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use devbox_secretsd::control_plane::ServerUrl;
use devbox_secretsd::identity::Identity;
use devbox_secretsd::sys::{Requirement, SecretMemory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use super::devbox::{Arrival, Devbox, join};
use crate::milliseconds;
use xtask::programs::Server;

/// Devboxes that join at once.
const JOINING: usize = 64;
/// Most bytes of one devbox's bundle.
const BUNDLE_LIMIT: usize = 1 << 20;
/// Open files of this process besides a connection for each devbox.
const OTHER_FILES: u64 = 256;
/// Until a bundle has come to every devbox.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Devboxes that hold the same revision.
#[derive(Debug)]
pub(crate) struct Crowd {
    runtime: Runtime,
    url: ServerUrl,
    memory: SecretMemory,
    /// Of devboxes that do not poll yet.
    identities: Vec<Identity>,
    devboxes: Vec<Devbox>,
    sender: Sender<Arrival>,
    arrivals: Receiver<Arrival>,
    /// The state that every devbox has or is about to get.
    pub(crate) revision: u64,
}

impl Crowd {
    /// Registers and enrols `count` devboxes, of which none polls yet.
    pub(crate) fn join(server: &Server, count: usize) -> Result<Self> {
        raise_open_files(count)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let url: ServerUrl = server.devbox.parse()?;
        let names = (0..count).map(|i| format!("fleet-{i}"));
        let tokens = names.map(|name| server.create_devbox(&name)).collect::<Result<Vec<_>>>()?;
        let identities = runtime.block_on(join_all(&url, tokens))?;
        let memory = SecretMemory::probe(Requirement::Any, BUNDLE_LIMIT)?;
        let (sender, arrivals) = mpsc::channel();
        let devboxes = Vec::with_capacity(count);
        Ok(Self { runtime, url, memory, identities, devboxes, sender, arrivals, revision: 0 })
    }

    /// How many devboxes poll.
    pub(crate) fn len(&self) -> usize {
        self.devboxes.len()
    }

    /// Lets more devboxes poll, `count` in all, and waits for their first bundles.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        let known = self.len();
        let left =
            self.identities.len().checked_sub(count - known).context("too few devboxes have joined")?;
        for identity in self.identities.split_off(left) {
            let (url, memory, sender) = (self.url.clone(), self.memory.clone(), self.sender.clone());
            let devbox = Devbox::start(self.runtime.handle(), url, identity, memory, sender);
            self.devboxes.push(devbox);
        }
        let first = self.await_arrivals(count - known, 0)?;
        self.revision = first.iter().map(|arrival| arrival.revision).fold(self.revision, u64::max);
        Ok(())
    }

    /// Leaves only the first `count` devboxes.
    pub(crate) fn shrink(&mut self, count: usize) {
        self.devboxes.truncate(count);
    }

    /// Waits until every devbox holds [`Self::revision`]: how long after `since` each one did, in milliseconds.
    pub(crate) fn gather(&self, since: Instant) -> Result<Vec<f64>> {
        let arrivals = self.await_arrivals(self.len(), self.revision)?;
        let delay = |arrival: &Arrival| milliseconds(arrival.at.saturating_duration_since(since));
        Ok(arrivals.iter().map(delay).collect())
    }

    /// A devbox tells each revision once.
    fn await_arrivals(&self, count: usize, revision: u64) -> Result<Vec<Arrival>> {
        let deadline = Instant::now() + PATIENCE;
        let mut arrived = Vec::with_capacity(count);
        while arrived.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let arrival =
                self.arrivals.recv_timeout(left).map_err(|_| self.missing(count - arrived.len()))?;
            arrived.extend((arrival.revision >= revision).then_some(arrival));
        }
        Ok(arrived)
    }

    fn missing(&self, count: usize) -> anyhow::Error {
        let failure = self.devboxes.iter().find_map(Devbox::failure);
        let failure = failure.unwrap_or_else(|| "without a reason".to_owned());
        anyhow!("{count} of {} devboxes have no bundle after {} s: {failure}", self.len(), PATIENCE.as_secs())
    }
}

async fn join_all(url: &ServerUrl, tokens: Vec<String>) -> Result<Vec<Identity>> {
    let mut identities = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter();
    loop {
        let joining: Vec<_> =
            tokens.by_ref().take(JOINING).map(|token| tokio::spawn(join(url.clone(), token))).collect();
        if joining.is_empty() {
            return Ok(identities);
        }
        for devbox in joining {
            identities.push(devbox.await??);
        }
    }
}

/// The soft limit of open files becomes the hard one, as the server does with its own.
fn raise_open_files(devboxes: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = devboxes as u64 + OTHER_FILES;
    ensure!(
        hard >= needed,
        "{devboxes} devboxes need {needed} open files, and the limit is {hard}: ulimit -Hn"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
