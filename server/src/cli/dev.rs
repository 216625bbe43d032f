//! `dev`: runs a development server with its own state, and prints a token for it.

use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::print_line;
use super::serve::{run_to_end, start};
use super::{Failure, StateArgs, absolute};
use crate::app::{App, KeyPolicy};
use crate::config::{Config, ConfigError};
use crate::logs;

/// Serve --state DIR for development: one account, a new token each time, plain HTTP on loopback
///
/// Creates DIR (mode 0700) and the master key in it if they do not exist. When ready, prints one
/// line of JSON: {"api": URL, "devbox": URL, "account": ID, "token": TOKEN}
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct DevArgs {
    /// Address of the public listener, on loopback; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    api: SocketAddr,
    /// Address of the devbox listener; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    devbox: SocketAddr,
    /// Address for /metrics, /healthz and /readyz, on loopback [default: not served]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
}

pub(super) async fn run(args: DevArgs, state: &StateArgs) -> Result<(), Failure> {
    let directory = state.state.as_ref().ok_or(Failure::State("--state DIR"))?;
    let mut config = Config::dev(&absolute(directory)?, args.api, args.devbox).map_err(Failure::Config)?;
    config.admin = loopback(args.admin)?;
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

/// The line that `dev` prints when the server is ready.
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
