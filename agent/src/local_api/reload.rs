//! Takes up changed rules in a running daemon: at SIGHUP, or when an operator asks. Other settings need a restart.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::access::peer::Peer;
use crate::config::{self, Mistakes, Overrides};
use crate::local_api::credentials::UnitCredentials;
use crate::local_api::launch::LaunchState;
use crate::sys::off_thread;
use crate::telemetry::audit::{Kind, audit};

/// Where the daemon's settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file that the command line names.
    pub file: Option<PathBuf>,
    /// What else the command line says.
    pub overrides: Overrides,
}

/// How many rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// `[[rule]]`s.
    pub rules: usize,
    /// `[[credential]]`s.
    pub credentials: usize,
}

/// Changes a running daemon's rules.
#[derive(Debug, Clone)]
pub struct Reload {
    sources: Sources,
    launches: Arc<LaunchState>,
    units: Arc<UnitCredentials>,
    /// One after the other: what was read last is in force.
    turn: Arc<Mutex<()>>,
}

impl Reload {
    /// Reads from `sources`, and changes the rules of `launches` and `units`.
    #[must_use]
    pub fn new(sources: Sources, launches: Arc<LaunchState>, units: Arc<UnitCredentials>) -> Self {
        Self { sources, launches, units, turn: Arc::default() }
    }

    /// Takes up the rules as they are now. Names of users may be looked up over the network: that takes as long as it takes, and
    /// stops nobody else. `asked`: who asked at the admin socket; none for a signal.
    ///
    /// # Errors
    /// [`Mistakes`], after which the old rules hold.
    pub async fn rules(&self, asked: Option<Peer>) -> Result<Counts, Mistakes> {
        let outcome = self.take_up().await;
        match &outcome {
            Ok(counts) => report_done(asked, *counts),
            Err(mistakes) => report_mistakes(asked, mistakes),
        }
        outcome
    }

    async fn take_up(&self) -> Result<Counts, Mistakes> {
        let _turn = self.turn.lock().await;
        let sources = self.sources.clone();
        let settings = off_thread(move || config::load(sources.file.as_deref(), &sources.overrides)).await?;
        let (policy, units) = (settings.policy, settings.credential_rules);
        let counts = Counts { rules: policy.rules().len(), credentials: units.rules().len() };
        self.launches.set_policy(policy);
        self.units.set_rules(units);
        Ok(counts)
    }

    /// Takes up the rules at every SIGHUP, for ever.
    pub async fn at_hangup(self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangups) = signal(SignalKind::hangup()) else { return pending().await };
        while hangups.recv().await.is_some() {
            // Told already.
            let _ = self.rules(None).await;
        }
    }
}

fn report_done(asked: Option<Peer>, counts: Counts) {
    audit!(
        info,
        Kind::Reload,
        maybe_peer = asked,
        count = counts.rules,
        credentials = counts.credentials,
        "rules taken up"
    );
}

fn report_mistakes(asked: Option<Peer>, mistakes: &Mistakes) {
    let reason = mistakes.to_string().replace('\n', "; ");
    audit!(
        error,
        Kind::Reload,
        maybe_peer = asked,
        code = "mistakes",
        reason,
        "the rules are kept as they were: {reason}"
    );
}
