//! `serve`: runs the server of a configuration until a signal stops it.

use devbox_secrets_common::process::raise_open_files;

use super::signals::{Reload, Signals};
use super::{Failure, StateArgs};
use crate::app::{App, KeyPolicy};
use crate::config::Config;
use crate::harden::lock_memory;
use crate::logs;
use crate::shutdown::{ShutdownTrigger, shutdown_signal};

pub(super) async fn run(state: &StateArgs) -> Result<(), Failure> {
    let config = state.config()?;
    logs::start(config.log);
    tracing::info!(?config, "starting");
    let (signals, trigger, app) = start(&config, KeyPolicy::Load).await?;
    let path = state.config.clone().ok_or(Failure::State("--config FILE"))?;
    tokio::spawn(signals.obey(trigger, Some(Reload { path, reloader: app.reloader() })));
    tracing::info!(bound = %app.bound(), "ready");
    notify_service_manager();
    run_to_end(app).await
}

/// `READY=1`, sd_notify(3). Without a service manager it goes nowhere.
fn notify_service_manager() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager was not notified: it waits for this server until its time-out");
    }
}

/// Binds the server. A signal that comes meanwhile is obeyed as soon as it is bound.
pub(super) async fn start(
    config: &Config,
    keys: KeyPolicy,
) -> Result<(Signals, ShutdownTrigger, App), Failure> {
    raise_open_files();
    if let Err(error) = lock_memory() {
        tracing::info!(reason = logs::chain(&error), "memory is not locked: it may be written to swap");
    }
    let (trigger, shutdown) = shutdown_signal();
    // Signals are caught before the state opens: one that arrives during the start stops the server
    // in order, and does not kill it halfway.
    let signals = Signals::handle()?;
    let app = App::start(config, keys, shutdown).await.map_err(Failure::Start)?;
    Ok((signals, trigger, app))
}

pub(super) async fn run_to_end(app: App) -> Result<(), Failure> {
    // A task of the runtime's threads: each timer and connection would wake the main thread
    // besides, if that ran it.
    if let Err(error) = tokio::spawn(app.run()).await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
    tracing::info!("stopped");
    Ok(())
}
