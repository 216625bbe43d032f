//! `devbox-secrets-server`: parse, harden, run, and say how it ended.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use devbox_secrets_server::app::{App, KeyPolicy, StartError, open_registry, settings};
use devbox_secrets_server::cli::{Cli, Command, DevAddresses, Exit, KeysCommand, Place};
use devbox_secrets_server::config::{Config, ConfigError, StateConfig};
use devbox_secrets_server::crypto::{MasterKey, MasterKeyError};
use devbox_secrets_server::harden::{HardenError, harden, raise_open_files};
use devbox_secrets_server::logs::{self, LogConfig};
use devbox_secrets_server::operator::{self, OperatorError};
use devbox_secrets_server::registry::{Refusal, Settings};
use devbox_secrets_server::shutdown::{ShutdownTrigger, shutdown_signal};
use devbox_secrets_server::tls::{self, TlsError};
use devbox_secrets_server::upkeep::{self, UpkeepError};
use serde::Serialize;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;
use zeroizing_alloc::ZeroAlloc;

/// Everything that is freed is wiped: request buffers, TLS records, parsed values.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// Why the program ends early.
#[derive(Debug, Error)]
enum Failure {
    #[error("the process could not be protected")]
    Harden(#[source] HardenError),
    #[error("this command needs {0}")]
    Place(&'static str),
    #[error("there is no state in {}: check the path; `dev --state DIR` makes one", .0.display())]
    NoState(PathBuf),
    #[error(transparent)]
    Config(ConfigError),
    #[error("the configuration names files that cannot be used")]
    Tls(#[source] TlsError),
    #[error("the configuration names a master key that cannot be used")]
    MasterKey(#[source] MasterKeyError),
    #[error("no master key was made")]
    NoMasterKeyMade(#[source] MasterKeyError),
    #[error("the runtime could not be started")]
    Runtime(#[source] io::Error),
    #[error("the server does not start")]
    Start(#[source] StartError),
    #[error("the development account could not be made")]
    Account(#[source] Refusal),
    #[error("standard output is closed")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Operator(OperatorError),
    #[error(transparent)]
    Upkeep(UpkeepError),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Upkeep(UpkeepError::NoState(_)) => Exit::Usage,
            Self::Place(_) | Self::NoState(_) | Self::Config(_) | Self::Tls(_) | Self::MasterKey(_) => {
                Exit::Usage
            }
            _ => Exit::Failed,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match protected(cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            report(&failure);
            failure.exit().into()
        }
    }
}

/// Hardens the process, then does what was asked.
fn protected(cli: Cli) -> Result<(), Failure> {
    harden().map_err(Failure::Harden)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve => serve(&cli.place).await,
        Command::Check => check(&cli.place).await,
        Command::Backup { to } => backup(&cli.place, &to).await,
        Command::Restore { from } => restore(&cli.place, &from).await,
        Command::Keys(KeysCommand::Init) => make_master_key(&cli.place),
        Command::Keys(KeysCommand::Rotate { new_master_key }) => rotate(&cli.place, &new_master_key).await,
        Command::Dev(addresses) => dev(&cli.place, addresses).await,
        Command::Operator(command) => operate(&cli.place, command).await,
    }
}

async fn serve(place: &Place) -> Result<(), Failure> {
    let config = load(place)?;
    logs::start(config.log);
    tracing::info!(?config, "starting");
    let app = start(&config, KeyPolicy::Load).await?;
    tracing::info!(bound = %app.bound(), "ready");
    run_to_end(app).await
}

async fn check(place: &Place) -> Result<(), Failure> {
    if place.config.is_some() {
        let config = load(place)?;
        if let Some(files) = &config.api.tls {
            tls::public_acceptor(files).map_err(Failure::Tls)?;
        }
        MasterKey::load(&config.state.master_key_file).map_err(Failure::MasterKey)?;
        print_line(b"the configuration is good\n")?;
    }
    let state = state(place)?;
    if place.config.is_some() && !state.has_state() {
        return print_line(b"there is no state yet\n");
    }
    let summary = upkeep::check(&state).await.map_err(Failure::Upkeep)?;
    print_line(format!("the state is good: {summary}\n").as_bytes())
}

async fn backup(place: &Place, to: &Path) -> Result<(), Failure> {
    upkeep::backup(&state(place)?, to, &operator::actor()).await.map_err(Failure::Upkeep)?;
    print_line(
        format!("wrote {}: the master key is not in it, back that up elsewhere\n", to.display()).as_bytes(),
    )
}

async fn restore(place: &Place, from: &Path) -> Result<(), Failure> {
    let summary = upkeep::restore(&state(place)?, from, &operator::actor()).await.map_err(Failure::Upkeep)?;
    let line = format!("restored {summary}: revoke again what was revoked since the backup\n");
    print_line(line.as_bytes())
}

async fn rotate(place: &Place, new: &Path) -> Result<(), Failure> {
    let new = absolute(new)?;
    let count = upkeep::rotate(&state(place)?, &new, &operator::actor()).await.map_err(Failure::Upkeep)?;
    let line = format!(
        "wrapped {count} records anew: back {} up and remove it there; keep the old key as long as backups from before\n",
        new.display()
    );
    print_line(line.as_bytes())
}

/// Where the state is, by configuration or directory.
fn state(place: &Place) -> Result<StateConfig, Failure> {
    match (&place.config, &place.state) {
        (Some(_), _) => Ok(load(place)?.state),
        (None, Some(directory)) => Ok(StateConfig::in_directory(&absolute(directory)?)),
        (None, None) => Err(Failure::Place("--config FILE or --state DIR")),
    }
}

fn make_master_key(place: &Place) -> Result<(), Failure> {
    let config = load(place)?;
    MasterKey::create(&config.state.master_key_file).map_err(Failure::NoMasterKeyMade)?;
    print_line(format!("made {}: back it up\n", config.state.master_key_file.display()).as_bytes())
}

async fn dev(place: &Place, addresses: DevAddresses) -> Result<(), Failure> {
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

async fn operate(place: &Place, command: operator::Command) -> Result<(), Failure> {
    logs::start(LogConfig { level: tracing::level_filters::LevelFilter::WARN, ..LogConfig::default() });
    let (state, settings) = match (&place.config, &place.state) {
        (Some(_), _) => {
            let config = load(place)?;
            (config.state, settings(&config.devbox))
        }
        (None, Some(directory)) => (existing_state(directory)?, Settings::default()),
        (None, None) => return Err(Failure::Place("--config FILE or --state DIR")),
    };
    let registry = open_registry(&state, settings, KeyPolicy::Load).await.map_err(Failure::Start)?;
    operator::run(command, &registry).await.map_err(Failure::Operator)
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

/// Writes past the buffer of standard output, which would keep the token.
fn print_line(line: &[u8]) -> Result<(), Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?;
    File::from(stdout).write_all(line).map_err(Failure::Output)
}

fn load(place: &Place) -> Result<Config, Failure> {
    let path = place.config.as_ref().ok_or(Failure::Place("--config FILE"))?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Config::load(path, credentials.as_deref()).map_err(Failure::Config)
}

/// An operator's command works on a state and never begins one: a mistyped path is a mistake.
fn existing_state(directory: &Path) -> Result<StateConfig, Failure> {
    let directory = absolute(directory)?;
    if directory.is_dir() {
        Ok(StateConfig::in_directory(&directory))
    } else {
        Err(Failure::NoState(directory))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::Runtime)
}

/// The failure and its causes, once.
fn report(failure: &Failure) {
    let mut text = format!("devbox-secrets-server: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}
