//! Puts changed rules into force in a running daemon, at SIGHUP or by the admin socket. Other
//! settings need a restart.

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

/// The sources of the daemon's settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file that the command line names.
    pub file: Option<PathBuf>,
    /// Settings of the command line.
    pub overrides: Overrides,
}

/// The number of rules in force.
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
    /// Reloads run one after the other, so that the file that was read last is in force.
    turn: Arc<Mutex<()>>,
}

impl Reload {
    /// Reads from `sources` and sets the rules of `launches` and `units`.
    #[must_use]
    pub(crate) fn new(sources: Sources, launches: Arc<LaunchState>, units: Arc<UnitCredentials>) -> Self {
        Self { sources, launches, units, turn: Arc::default() }
    }

    /// Reloads the rules. Names of users may be looked up over the network, which may take long and
    /// delays nothing else. `asked`: the peer of the admin socket; `None` for a signal.
    ///
    /// # Errors
    /// [`Mistakes`]; then the old rules stay in force.
    pub(crate) async fn rules(&self, asked: Option<Peer>) -> Result<Counts, Mistakes> {
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
        let policy = settings.policy;
        let units = settings.credential_rules;
        let counts = Counts { rules: policy.rules().len(), credentials: units.rules().len() };
        self.launches.set_policy(policy);
        self.units.set_rules(units);
        Ok(counts)
    }

    /// Reloads the rules at every SIGHUP, for ever.
    pub async fn at_hangup(self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangups) = signal(SignalKind::hangup()) else { return pending().await };
        while hangups.recv().await.is_some() {
            // Logged already.
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
        "rules reloaded"
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
        "the old rules stay in force: {reason}"
    );
}
