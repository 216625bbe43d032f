//! The signals of a serving process: SIGTERM and SIGINT stop it, SIGHUP reloads its configuration,
//! SIGUSR1 and SIGUSR2 do nothing.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::config::Config;
use crate::listeners::Reloader;
use crate::logs;
use crate::metrics::ReloadResult;
use crate::registry::{Action, server_facts};
use crate::shutdown::ShutdownTrigger;

/// The handlers, in place before the first request can be.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// # Errors
    /// [`Failure::Runtime`] if a handler cannot be set.
    pub(super) fn handle() -> Result<Self, Failure> {
        let handler = |kind| signal(kind).map_err(Failure::Runtime);
        // A handler stays for the life of the process. These two are never awaited; without a
        // handler they would end the process.
        drop([handler(SignalKind::user_defined1())?, handler(SignalKind::user_defined2())?]);
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    /// Stops the server when it should, and reloads it in between. Without a `reload` (`dev` has no
    /// configuration) SIGHUP stops too: its terminal has gone.
    pub(super) async fn obey(mut self, trigger: ShutdownTrigger, reload: Option<Reload>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => match &reload {
                    Some(reload) => reload.run(),
                    None => break,
                },
            }
        }
        trigger.stop();
    }
}

/// A reload of the configuration's file.
pub(super) struct Reload {
    pub(super) path: PathBuf,
    pub(super) reloader: Reloader,
}

impl Reload {
    /// A signal cannot report mistakes: they are in the log, with the counter `reloads`.
    fn run(&self) {
        let result = match super::load(&self.path) {
            Ok(config) => self.apply(&config),
            Err(error) => self.keep(&logs::chain(&error)),
        };
        self.reloader.registry().metrics().reloaded(result);
    }

    fn apply(&self, config: &Config) -> ReloadResult {
        match self.reloader.reload(config) {
            Ok(unchanged) => {
                tracing::info!(?config, "reloaded");
                let registry = self.reloader.registry().clone();
                let facts = server_facts(config);
                tokio::spawn(async move { registry.note_server(Action::ServerReload, &facts).await });
                for setting in unchanged {
                    tracing::warn!(
                        "{setting} changed, which needs a restart: the old value stays in use until then"
                    );
                }
                ReloadResult::Done
            }
            Err(error) => self.keep(&logs::chain(&error)),
        }
    }

    fn keep(&self, error: &str) -> ReloadResult {
        tracing::error!(error, "not reloaded: the server keeps its configuration");
        ReloadResult::Failed
    }
}
