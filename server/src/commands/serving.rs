//! `serve` and `dev`: until a signal stops them.

use std::net::SocketAddr;

use serde::Serialize;
use zeroize::Zeroizing;

use super::signals::{Reload, Signals};
use super::{Failure, absolute, load, print_line};
use crate::app::{App, KeyPolicy};
use crate::cli::{DevAddresses, Place};
use crate::config::{Config, ConfigError};
use crate::harden::{lock_memory, raise_open_files};
use crate::logs;
use crate::shutdown::{ShutdownTrigger, shutdown_signal};

pub(super) async fn serve(place: &Place) -> Result<(), Failure> {
    let config = load(place)?;
    logs::start(config.log);
    tracing::info!(?config, "starting");
    let (signals, trigger, app) = start(&config, KeyPolicy::Load).await?;
    let path = place.config.clone().ok_or(Failure::Place("--config FILE"))?;
    tokio::spawn(signals.obey(trigger, Some(Reload { path, reloader: app.reloader() })));
    tracing::info!(bound = %app.bound(), "ready");
    notify_service_manager();
    run_to_end(app).await
}

/// `READY=1`, sd_notify(3). Without a service manager it goes nowhere.
fn notify_service_manager() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager was not notified: it will wait for this server in vain");
    }
}

pub(super) async fn dev(place: &Place, addresses: DevAddresses) -> Result<(), Failure> {
    let state = place.state.as_ref().ok_or(Failure::Place("--state DIR"))?;
    let mut config =
        Config::dev(&absolute(state)?, addresses.api, addresses.devbox).map_err(Failure::Config)?;
    config.admin = loopback(addresses.admin)?;
    logs::start(config.log);
    let (signals, trigger, app) = start(&config, KeyPolicy::Own).await?;
    tokio::spawn(signals.obey(trigger, None));
    announce(&app).await?;
    run_to_end(app).await
}

fn loopback(admin: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
    match admin {
        Some(address) if !address.ip().is_loopback() => Err(Failure::Config(ConfigError::PlainDev)),
        admin => Ok(admin),
    }
}

/// Binds the server. A signal that comes meanwhile is obeyed as soon as it is bound.
async fn start(config: &Config, keys: KeyPolicy) -> Result<(Signals, ShutdownTrigger, App), Failure> {
    raise_open_files();
    if let Err(error) = lock_memory() {
        tracing::info!(
            reason = logs::chain(&error),
            "memory is not locked: where there is swap, it may be written there"
        );
    }
    let (trigger, shutdown) = shutdown_signal();
    let signals = Signals::handle()?;
    let app = App::start(config, keys, shutdown).await.map_err(Failure::Start)?;
    Ok((signals, trigger, app))
}

async fn run_to_end(app: App) -> Result<(), Failure> {
    app.run().await;
    tracing::info!("stopped");
    Ok(())
}

/// What `dev` prints when ready.
#[derive(Serialize)]
struct Announcement<'a> {
    api: String,
    devbox: String,
    account: &'a str,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
}

async fn announce(app: &App) -> Result<(), Failure> {
    let development = app.registry().development_account().await.map_err(Failure::Account)?;
    let announcement = Announcement {
        api: app.bound().api_url(),
        devbox: app.bound().devbox_url(),
        account: development.account.id.as_str(),
        token: development.token.expose_token(),
        admin: app.bound().admin.map(|admin| format!("http://{admin}")),
    };
    let mut line = Zeroizing::new(Vec::new());
    serde_json::to_writer(&mut *line, &announcement).map_err(|error| Failure::Output(error.into()))?;
    line.push(b'\n');
    print_line(&line)
}
