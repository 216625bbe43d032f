//! `serve` and `dev`: until SIGTERM or SIGINT.

use std::net::SocketAddr;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::{Failure, absolute, load, print_line};
use crate::app::{App, KeyPolicy};
use crate::cli::{DevAddresses, Place};
use crate::config::{Config, ConfigError};
use crate::harden::raise_open_files;
use crate::logs;
use crate::shutdown::{ShutdownTrigger, shutdown_signal};

pub(super) async fn serve(place: &Place) -> Result<(), Failure> {
    let config = load(place)?;
    logs::start(config.log);
    tracing::info!(?config, "starting");
    let app = start(&config, KeyPolicy::Load).await?;
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
    let app = start(&config, KeyPolicy::Own).await?;
    announce(&app).await?;
    run_to_end(app).await
}

fn loopback(admin: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
    match admin {
        Some(address) if !address.ip().is_loopback() => Err(Failure::Config(ConfigError::PlainDev)),
        admin => Ok(admin),
    }
}

/// Binds the server, which will stop at SIGTERM or SIGINT.
async fn start(config: &Config, keys: KeyPolicy) -> Result<App, Failure> {
    raise_open_files();
    let (trigger, shutdown) = shutdown_signal();
    stop_on_signals(trigger)?;
    App::start(config, keys, shutdown).await.map_err(Failure::Start)
}

async fn run_to_end(app: App) -> Result<(), Failure> {
    app.run().await;
    tracing::info!("stopped");
    Ok(())
}

/// Handlers are in place before the first request can be.
fn stop_on_signals(trigger: ShutdownTrigger) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        trigger.stop();
    });
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
